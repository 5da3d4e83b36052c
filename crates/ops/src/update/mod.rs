//! In-place updates of parameters: SGD with momentum, and the momentum update of the key encoder.
//!
//! All tensors of a network are updated in one parallel region or one launch, each in one pass over its
//! memory.

mod gpu;
mod in_place;
mod types;

use candle_core::Tensor;
use rayon::prelude::*;

use self::types::{EMA, SGD};
use crate::backend::on_gpu;
use crate::dense::{Dense, by_dtype, expect_shape};
use crate::elementwise::{self, CHUNK};
use crate::error::OpError;
use crate::simd::{Float, vectorize};

pub(crate) use self::in_place::{change, expect_contiguous, expect_own_memory};
pub use self::types::{EmaUpdate, SgdUpdate};

/// PyTorch's SGD: `g ← g + weight_decay·p; buffer ← sgd_momentum·buffer + g; p ← p − lr·buffer`,
/// without dampening or Nesterov. A buffer of zeros gives PyTorch's first step (`buffer = g`).
/// Parameters and buffers are changed in place. `lr` is a tensor `[1]` of the parameters' type where they
/// are, so that a recorded update finds another one each time.
///
/// # Errors
/// If `lr` is of another shape or type, or a tensor to be changed shares its memory with another one; then nothing was changed.
pub fn sgd_(
    updates: &[SgdUpdate<'_>],
    lr: &Tensor,
    [sgd_momentum, weight_decay]: [f64; 2],
) -> Result<(), OpError> {
    let changed = updates.iter().flat_map(|u| [("parameter", u.parameter), ("buffer", u.buffer)]);
    expect_own_memory(SGD, changed, updates.iter().map(|u| u.gradient.tensor()))?;
    expect_shape(SGD, "lr", lr, &[1])?;
    let Some(first) = updates.first() else { return Ok(()) };
    if lr.dtype() != first.parameter.dtype() {
        return Err(OpError::DType { op: SGD, tensor: "lr", got: lr.dtype() });
    }
    on_gpu!(SGD, first.parameter, gpu::sgd, updates, lr, [sgd_momentum, weight_decay]);
    for_each(
        updates,
        |u| u.parameter,
        |u| {
            let parameter = u.parameter;
            by_dtype!(SGD, parameter, sgd_one(u, lr, [sgd_momentum, weight_decay]))
        },
    )
}

fn sgd_one<T: Float>(
    update: &SgdUpdate<'_>,
    lr: &Tensor,
    constants: [f64; 2],
) -> Result<(), OpError> {
    let lr = Dense::rows(SGD, lr)?.with(SGD, |lr: &[T]| Ok(lr[0]))?;
    let [sgd_momentum, weight_decay] = constants.map(T::of);
    let step = |p: &mut [T], buffer: &mut [T], g: &[T]| {
        vectorize(|| {
            for ((p, buffer), g) in p.iter_mut().zip(buffer).zip(g) {
                *buffer = sgd_momentum * *buffer + (*g + weight_decay * *p);
                *p -= lr * *buffer;
            }
        });
    };
    let SgdUpdate { parameter, gradient, buffer } = update;
    gradient.with(SGD, |g: &[T]| {
        change(SGD, parameter, |p: &mut [T]| {
            change(SGD, buffer, |buffer: &mut [T]| {
                let n = p.len();
                let chunks = p.chunks_mut(CHUNK).zip(buffer.chunks_mut(CHUNK)).zip(g.chunks(CHUNK));
                elementwise::for_each(n, chunks, |_, ((p, buffer), g)| step(p, buffer, g));
                Ok(())
            })
        })
    })
}

/// The momentum update `θ_k ← m·θ_k + (1 − m)·θ_q` in place (MoCo v1 Eq. (2); official
/// `builder.py:55-63`).
///
/// # Errors
/// If a tensor to be changed shares its memory with another one; then nothing was changed.
pub fn ema_(updates: &[EmaUpdate<'_>], key_momentum: f64) -> Result<(), OpError> {
    let changed = updates.iter().map(|u| ("key", u.key));
    expect_own_memory(EMA, changed, updates.iter().map(|u| u.query.tensor()))?;
    if let Some(first) = updates.first() {
        on_gpu!(EMA, first.key, gpu::ema, updates, key_momentum);
    }
    for_each(
        updates,
        |u| u.key,
        |u| {
            let key = u.key;
            by_dtype!(EMA, key, ema_one(u, key_momentum))
        },
    )
}

fn ema_one<T: Float>(update: &EmaUpdate<'_>, key_momentum: f64) -> Result<(), OpError> {
    let (m, rest) = (T::of(key_momentum), T::of(1.0 - key_momentum));
    let step = |key: &mut [T], query: &[T]| {
        vectorize(|| {
            for (key, query) in key.iter_mut().zip(query) {
                *key = m * *key + rest * *query;
            }
        });
    };
    update.query.with(EMA, |query: &[T]| {
        change(EMA, update.key, |key: &mut [T]| {
            let n = key.len();
            let chunks = key.chunks_mut(CHUNK).zip(query.chunks(CHUNK));
            elementwise::for_each(n, chunks, |_, (key, query)| step(key, query));
            Ok(())
        })
    })
}

/// Does `work` for each update; on several threads if the tensors to be changed are large enough.
fn for_each<U: Sync>(
    updates: &[U],
    changed: impl Fn(&U) -> &Tensor,
    work: impl Fn(&U) -> Result<(), OpError> + Sync + Send,
) -> Result<(), OpError> {
    let elements: usize = updates.iter().map(|update| changed(update).elem_count()).sum();
    if elements < CHUNK {
        return updates.iter().try_for_each(work);
    }
    updates.par_iter().try_for_each(work)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn vector(len: usize, value: impl Fn(f64) -> f64) -> Tensor {
        let numbers: Vec<f64> =
            (0..len).map(|i| value(f64::from(u32::try_from(i).unwrap()))).collect();
        Tensor::from_vec(numbers, len, &Device::Cpu).unwrap()
    }

    fn rate(lr: f64, dtype: DType) -> Tensor {
        Tensor::new(&[lr], &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    fn numbers(x: &Tensor) -> Vec<f64> {
        x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// One large and several small tensors at once, each against the equation.
    #[test]
    fn every_element_of_every_tensor_is_updated_once() {
        for dtype in [DType::F32, DType::F64] {
            let of = |value: fn(f64) -> f64| -> Vec<Tensor> {
                let lens = [1, 3 * CHUNK + 7, 0, 100, CHUNK];
                lens.iter().map(|len| vector(*len, value).to_dtype(dtype).unwrap()).collect()
            };
            let tolerance = if dtype == DType::F32 { 1e-6 } else { 1e-14 };
            let (p, g, b, k) = (of(f64::sin), of(f64::cos), of(|i| (2.0 * i).sin()), of(f64::cos));
            let before: Vec<_> = p.iter().zip(&b).map(|(p, b)| (numbers(p), numbers(b))).collect();
            let parts = p.iter().zip(&g).zip(&b);
            let updates: Vec<_> =
                parts.map(|((p, g), b)| SgdUpdate::new(p, g, b).unwrap()).collect();
            sgd_(&updates, &rate(0.1, dtype), [0.9, 0.01]).unwrap();
            let updates: Vec<_> =
                k.iter().zip(&p).map(|(k, p)| EmaUpdate::new(k, p).unwrap()).collect();
            ema_(&updates, 0.75).unwrap();
            for (i, (old_p, old_b)) in before.iter().enumerate() {
                let (p, b, g, k) = (numbers(&p[i]), numbers(&b[i]), numbers(&g[i]), numbers(&k[i]));
                for j in 0..p.len() {
                    let buffer = 0.9 * old_b[j] + g[j] + 0.01 * old_p[j];
                    assert!((b[j] - buffer).abs() < tolerance, "{i} {j}");
                    assert!((p[j] - (old_p[j] - 0.1 * buffer)).abs() < tolerance, "{i} {j}");
                    // The key started as the gradient.
                    let key = 0.75 * g[j] + 0.25 * (old_p[j] - 0.1 * buffer);
                    assert!((k[j] - key).abs() < tolerance, "{i} {j}");
                }
            }
        }
    }

    #[test]
    fn a_view_of_a_part_changes_that_part_alone() {
        let all = vector(6, |i| i);
        let ones = Tensor::ones(2, DType::F64, &Device::Cpu).unwrap();
        ema_(&[EmaUpdate::new(&all.narrow(0, 2, 2).unwrap(), &ones).unwrap()], 0.0).unwrap();
        assert_eq!(numbers(&all), [0.0, 1.0, 1.0, 1.0, 4.0, 5.0]);
    }

    #[test]
    fn what_does_not_fit_is_named_and_nothing_is_changed() {
        let (a, b, c) = (vector(4, |i| i), vector(4, |i| i), vector(4, |i| i));
        let square = a.reshape((2, 2)).unwrap();
        let turned = square.t().unwrap();
        let single = a.to_dtype(DType::F32).unwrap();
        let message = |result: Result<(), OpError>| result.unwrap_err().to_string();
        let double = rate(0.1, DType::F64);
        let sgd = |p: &Tensor, g: &Tensor, b: &Tensor| {
            sgd_(&[SgdUpdate::new(p, g, b)?], &double, [0.1; 2])
        };
        let rated = |lr: &Tensor| sgd_(&[SgdUpdate::new(&a, &b, &c)?], lr, [0.1; 2]);
        let ema = |pairs: [(&Tensor, &Tensor); 2]| {
            let [first, second] = pairs.map(|(k, q)| EmaUpdate::new(k, q));
            ema_(&[first?, second?], 0.5)
        };
        let shared = "shares its memory with another tensor of the update";
        for (got, expected) in [
            (
                message(sgd(&a, &square, &b)),
                "sgd: `gradient` has shape [2, 2], expected [4]".into(),
            ),
            (message(sgd(&a, &single, &b)), "sgd: `gradient` is F32".into()),
            (message(rated(&rate(0.1, DType::F32))), "sgd: `lr` is F32".into()),
            (message(rated(&a)), "sgd: `lr` has shape [4], expected [1]".into()),
            (message(sgd(&turned, &square, &square)), "sgd: `parameter` is a strided view".into()),
            (message(sgd(&a, &b, &b)), format!("sgd: `buffer` {shared}")),
            (message(sgd(&a, &b, &a)), format!("sgd: `buffer` {shared}")),
            (message(sgd(&a, &a, &b)), format!("sgd: `parameter` {shared}")),
            (message(ema([(&a, &b), (&b, &c)])), format!("ema: `key` {shared}")),
            (message(ema([(&a, &b), (&a.clone(), &c)])), format!("ema: `key` {shared}")),
        ] {
            let expected: String = expected;
            assert!(got.contains(&expected), "{got}");
        }
        for x in [&a, &b, &c] {
            assert_eq!(numbers(x), [0.0, 1.0, 2.0, 3.0]);
        }
    }
}
