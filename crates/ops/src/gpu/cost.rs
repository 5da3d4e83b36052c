//! The least that an operation must move and multiply: a trace compares its time with that.

use candle_core::Tensor;

use super::convolution::Direction;
use super::{Arg, Convolution, Kernel};
use crate::Conv2dSpec;
use crate::conv::Geometry;

/// An operation that a GPU was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) op: &'static str,
    /// The kernel, or what a library computes.
    pub(crate) kernel: String,
    pub(crate) shape: String,
    pub(crate) bytes: u64,
    pub(crate) flops: u64,
}

impl Work {
    /// A kernel: each tensor that it is given is read or written once, one that it changes through a table
    /// both. A tensor of which it touches a part counts whole.
    pub(crate) fn of_launch(op: &'static str, kernel: Kernel, args: &[Arg<'_>]) -> Self {
        let size = |x: &Tensor| (x.elem_count() * x.dtype().size_in_bytes()) as u64;
        let bytes = args.iter().map(|arg| match arg {
            Arg::In(x) | Arg::Out(x) => size(x),
            Arg::Changed(x) => 2 * size(x),
            Arg::U32(_) | Arg::U64(_) | Arg::F32(_) => 0,
        });
        let largest = args.iter().filter_map(|arg| match arg {
            Arg::In(x) | Arg::Out(x) | Arg::Changed(x) => Some(x),
            Arg::U32(_) | Arg::U64(_) | Arg::F32(_) => None,
        });
        let largest = largest.max_by_key(|x| x.elem_count());
        let shape = largest.map_or_else(String::new, |x| format!("{:?}", x.dims()));
        Self { op, kernel: kernel.entry(), shape, bytes: bytes.sum(), flops: 0 }
    }

    pub(crate) fn of_convolution(op: &'static str, convolution: &Convolution) -> Self {
        let Convolution { direction, geometry, dtype } = convolution;
        let Geometry { n, c, h, w, co, k, ho, wo, spec } = *geometry;
        let Conv2dSpec { stride, groups, .. } = spec;
        let c_group = geometry.c_group();
        // Pixels that a stride passes over are not read where the filter is a single tap.
        let pixels = if k == 1 { ho * wo } else { h * w };
        let input = match direction {
            Direction::InputGradient => n * h * w * c,
            Direction::Forward | Direction::WeightGradient => n * pixels * c,
        };
        let numbers = input + n * ho * wo * co + co * k * k * c_group;
        let groups = if groups == 1 { String::new() } else { format!(" in {groups} groups") };
        Self {
            op,
            kernel: format!("{direction:?}_{}", dtype.as_str()),
            shape: format!("{n}x{c}x{h}x{w} to {co} by {k} stride {stride}{groups}"),
            bytes: (numbers * dtype.size_in_bytes()) as u64,
            flops: 2 * (n * ho * wo * co * k * k * c_group) as u64,
        }
    }

    pub(crate) fn of_product(op: &'static str, a: &Tensor, b: &Tensor) -> Self {
        let numbers = |x: &Tensor| x.elem_count() as u64;
        let rows = a.dims().first().copied().unwrap_or_default() as u64;
        let columns = b.dims().last().copied().unwrap_or_default() as u64;
        let size = a.dtype().size_in_bytes() as u64;
        Self {
            op,
            kernel: "Product".into(),
            shape: format!("{:?} by {:?}", a.dims(), b.dims()),
            bytes: (numbers(a) + numbers(b) + rows * columns) * size,
            flops: 2 * numbers(a) * columns,
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn zeros(dims: &[usize], dtype: DType) -> Tensor {
        Tensor::zeros(dims, dtype, &Device::Cpu).unwrap()
    }

    #[test]
    fn a_kernel_moves_each_tensor_once_and_changed_ones_twice() {
        let (x, y, z) =
            (zeros(&[2, 3], DType::BF16), zeros(&[5], DType::F32), zeros(&[7], DType::F32));
        let args = [Arg::In(&x), Arg::Out(&y), Arg::Changed(&z), Arg::U32(9), Arg::F32(1.0)];
        let work = Work::of_launch("add", Kernel::typed("add", &x), &args);
        let expected = Work {
            op: "add",
            kernel: "add_bf16".into(),
            shape: "[7]".into(),
            bytes: 12 + 20 + 56,
            flops: 0,
        };
        assert_eq!(work, expected);
    }

    #[test]
    fn a_convolution_multiplies_each_tap_and_moves_each_tensor_once() {
        let work = |direction, x, weight, spec| {
            let geometry = Geometry::new("", x, weight, spec).unwrap();
            Work::of_convolution("conv2d", &Convolution { direction, geometry, dtype: DType::BF16 })
        };
        let got = work(Direction::Forward, [2, 4, 9, 9], [8, 4, 3, 3], Conv2dSpec::new(2, 1));
        assert_eq!(
            (got.kernel.as_str(), got.shape.as_str()),
            ("Forward_bf16", "2x4x9x9 to 8 by 3 stride 2")
        );
        assert_eq!(got.bytes, 2 * (2 * 81 * 4 + 2 * 25 * 8 + 8 * 9 * 4));
        assert_eq!(got.flops, 2 * 2 * 25 * 8 * 9 * 4);
        // One tap at a stride of 2 reads a quarter, and its gradient is zero elsewhere but written.
        let dims = ([1, 4, 4, 4], [2, 2, 1, 1], Conv2dSpec { groups: 2, ..Conv2dSpec::new(2, 0) });
        let [forward, gradient] = [Direction::Forward, Direction::InputGradient]
            .map(|direction| work(direction, dims.0, dims.1, dims.2));
        assert_eq!(forward.bytes, 2 * (4 * 4 + 4 * 2 + 2 * 2));
        assert_eq!(gradient.bytes, 2 * (16 * 4 + 4 * 2 + 2 * 2));
        assert!(forward.shape.ends_with("in 2 groups"), "{forward:?}");
        assert_eq!(forward.flops, 2 * 4 * 2 * 2);
    }

    #[test]
    fn a_product_is_rows_by_columns() {
        let (a, b) = (zeros(&[3, 5], DType::F32), zeros(&[5, 2], DType::F32));
        let work = Work::of_product("linear", &a, &b);
        assert_eq!((work.bytes, work.flops), (4 * (15 + 10 + 6), 2 * 3 * 5 * 2));
    }
}
