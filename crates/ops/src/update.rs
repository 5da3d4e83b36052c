//! In-place updates of parameters: SGD with momentum, and the momentum update of the key encoder.

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Tensor};

use crate::dense::expect_shape;
use crate::error::{InOp, OpError};
use crate::simd::{Float, vectorize};

/// PyTorch's SGD: `g ← g + weight_decay·p; buffer ← sgd_momentum·buffer + g; p ← p − lr·buffer`,
/// without dampening or Nesterov. A buffer of zeros gives PyTorch's first step (`buffer = g`).
/// `parameter` and `buffer` are changed in place and must not be views.
///
/// # Errors
/// If the shapes differ or a tensor is a view.
pub fn sgd_(
    parameter: &Tensor,
    gradient: &Tensor,
    buffer: &Tensor,
    [lr, sgd_momentum, weight_decay]: [f64; 3],
) -> Result<(), OpError> {
    const OP: &str = "sgd";
    expect_shape(OP, "gradient", gradient, parameter.dims())?;
    expect_shape(OP, "buffer", buffer, parameter.dims())?;
    let gradient = gradient.contiguous().in_op(OP)?;
    let accumulate = Linear { name: OP, keep: sgd_momentum, add: [1.0, weight_decay] };
    buffer.inplace_op3(&gradient, parameter, &accumulate).in_op(OP)?;
    let step = Linear { name: OP, keep: 1.0, add: [-lr] };
    parameter.inplace_op2(buffer, &step).in_op(OP)
}

/// The momentum update `θ_k ← m·θ_k + (1 − m)·θ_q` in place (MoCo v1 Eq. (2); official
/// `builder.py:55-63`). `key` must not be a view.
///
/// # Errors
/// If the shapes differ or a tensor is a view.
pub fn ema_(key: &Tensor, query: &Tensor, key_momentum: f64) -> Result<(), OpError> {
    const OP: &str = "ema";
    expect_shape(OP, "query", query, key.dims())?;
    let update = Linear { name: OP, keep: key_momentum, add: [1.0 - key_momentum] };
    key.inplace_op2(query, &update).in_op(OP)
}

/// `dst ← keep·dst + Σ add[i]·src[i]`.
struct Linear<const N: usize> {
    name: &'static str,
    keep: f64,
    add: [f64; N],
}

impl InplaceOp2 for Linear<1> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        dst: &mut CpuStorage,
        dst_layout: &Layout,
        s: &CpuStorage,
        l: &Layout,
    ) -> candle_core::Result<()> {
        self.on_cpu(dst, dst_layout, [(s, l)])
    }
}

impl InplaceOp3 for Linear<2> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        dst: &mut CpuStorage,
        dst_layout: &Layout,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> candle_core::Result<()> {
        self.on_cpu(dst, dst_layout, [(s1, l1), (s2, l2)])
    }
}

impl<const N: usize> Linear<N> {
    fn on_cpu(
        &self,
        dst: &mut CpuStorage,
        dst_layout: &Layout,
        sources: [(&CpuStorage, &Layout); N],
    ) -> candle_core::Result<()> {
        for layout in sources.iter().map(|(_, layout)| *layout).chain([dst_layout]) {
            if !layout.is_contiguous() {
                candle_core::bail!("{}: an in-place update of a strided view", self.name);
            }
        }
        let start = dst_layout.start_offset();
        let range = start..start + dst_layout.shape().elem_count();
        match dst {
            CpuStorage::F32(dst) => self.apply(&mut dst[range], sources),
            CpuStorage::F64(dst) => self.apply(&mut dst[range], sources),
            _ => candle_core::bail!("{}: neither f32 nor f64", self.name),
        }
    }

    fn apply<T: Float>(
        &self,
        dst: &mut [T],
        sources: [(&CpuStorage, &Layout); N],
    ) -> candle_core::Result<()> {
        let mut slices: [&[T]; N] = [&[]; N];
        for (slice, (storage, layout)) in slices.iter_mut().zip(sources) {
            *slice = &storage.as_slice::<T>()?[layout.start_offset()..][..dst.len()];
        }
        let (keep, add) = (T::of(self.keep), self.add.map(T::of));
        vectorize(|| {
            for (i, dst) in dst.iter_mut().enumerate() {
                let mut sum = keep * *dst;
                for (slice, factor) in slices.iter().zip(add) {
                    sum += factor * slice[i];
                }
                *dst = sum;
            }
        });
        Ok(())
    }
}
