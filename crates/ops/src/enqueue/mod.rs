//! Keys on their way into the queue.

mod gpu;

use candle_core::{DType, Tensor};

use crate::backend::on_gpu;
use crate::dense::{Dense, dims2, expect_integers, expect_shape, shape};
use crate::error::{InOp, OpError};
use crate::update::{expect_contiguous, expect_own_memory};

const OP: &str = "enqueue";

/// Writes keys, `[N, C]` each, one tensor after the other into columns of the queue `[C, K]` in place, from
/// column `ptr` on and with column 0 after the last (MoCo v1 §3.2; official `builder.py:65-79`). `ptr` is u32
/// `[1]` where the queue is, so that a recorded launch finds another one each time. On a GPU keys are f32,
/// and a queue of bf16 rounds them to nearest.
///
/// # Errors
/// If the shapes or types do not fit, there are more than K keys, or `ptr` is not below K (on a GPU, where
/// this cannot be checked, it wraps); then nothing was changed.
pub fn enqueue_(queue: &Tensor, keys: &[&Tensor], ptr: &Tensor) -> Result<(), OpError> {
    let [c, queue_size] = dims2(OP, "queue", queue)?;
    let mut n_keys = 0;
    for keys in keys {
        let [n, _] = dims2(OP, "keys", keys)?;
        expect_shape(OP, "keys", keys, &[n, c])?;
        n_keys += n;
    }
    if n_keys > queue_size {
        return Err(shape(OP, "keys", format!("at most {queue_size} keys"), &[n_keys, c]));
    }
    expect_shape(OP, "ptr", ptr, &[1])?;
    expect_integers(OP, "ptr", ptr, DType::U32)?;
    expect_contiguous(OP, "queue", queue)?;
    expect_own_memory(OP, std::iter::once(("queue", queue)), keys.iter().copied())?;
    on_gpu!(OP, queue, gpu::enqueue, OP, queue, keys, ptr);
    on_cpu(queue, keys, ptr)
}

fn on_cpu(queue: &Tensor, keys: &[&Tensor], ptr: &Tensor) -> Result<(), OpError> {
    let queue_size = queue.dims()[1];
    let mut at = ptr.to_vec1::<u32>().in_op(OP)?[0] as usize;
    if at >= queue_size {
        #[expect(clippy::cast_precision_loss, reason = "for a message")]
        let got = at as f64;
        let expected = "below the size of the queue";
        return Err(OpError::Argument { op: OP, argument: "ptr", expected, got });
    }
    if let Some(keys) = keys.iter().find(|keys| keys.dtype() != queue.dtype()) {
        return Err(OpError::DType { op: OP, tensor: "keys", got: keys.dtype() });
    }
    for keys in keys {
        let columns = Dense::rows(OP, &keys.t().in_op(OP)?)?;
        let n = keys.dims()[0];
        let before_end = n.min(queue_size - at);
        for (first, len, at) in [(0, before_end, at), (before_end, n - before_end, 0)] {
            if len > 0 {
                let part =
                    columns.tensor().narrow(1, first, len).and_then(|part| part.contiguous());
                part.and_then(|part| queue.slice_set(&part, 1, at)).in_op(OP)?;
            }
        }
        at = (at + n) % queue_size;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn keys(first: f64, n: usize) -> Tensor {
        let numbers: Vec<f64> = (0..2 * n).map(|i| first + i as f64).collect();
        Tensor::from_vec(numbers, (n, 2), &Device::Cpu).unwrap()
    }

    fn ptr(at: u32) -> Tensor {
        Tensor::new(&[at], &Device::Cpu).unwrap()
    }

    #[test]
    fn keys_become_columns_and_wrap() {
        let queue = Tensor::zeros((2, 5), DType::F64, &Device::Cpu).unwrap();
        enqueue_(&queue, &[&keys(1.0, 2), &keys(11.0, 1)], &ptr(3)).unwrap();
        let expected = [[11.0, 0.0, 0.0, 1.0, 3.0], [12.0, 0.0, 0.0, 2.0, 4.0]];
        assert_eq!(queue.to_vec2::<f64>().unwrap(), expected);
        enqueue_(&queue, &[&keys(21.0, 3)], &ptr(4)).unwrap();
        let expected = [[23.0, 25.0, 0.0, 1.0, 21.0], [24.0, 26.0, 0.0, 2.0, 22.0]];
        assert_eq!(queue.to_vec2::<f64>().unwrap(), expected);
    }

    #[test]
    fn what_does_not_fit_is_named_and_nothing_is_changed() {
        let queue = Tensor::zeros((2, 3), DType::F64, &Device::Cpu).unwrap();
        let single = keys(1.0, 1).to_dtype(DType::F32).unwrap();
        let wide = Tensor::ones((1, 3), DType::F64, &Device::Cpu).unwrap();
        let own = queue.narrow(0, 0, 1).unwrap().narrow(1, 0, 2).unwrap();
        for (keys, ptr, expected) in [
            (vec![&keys(1.0, 2), &keys(5.0, 2)], ptr(0), "[4, 2], expected at most 3 keys"),
            (vec![&keys(1.0, 1), &single], ptr(0), "`keys` is F32"),
            (vec![&wide], ptr(0), "`keys` has shape [1, 3], expected [1, 2]"),
            (vec![&own], ptr(0), "`queue` shares its memory"),
            (vec![&keys(1.0, 1)], ptr(3), "`ptr` = 3, expected below the size of the queue"),
            (vec![&keys(1.0, 1)], keys(1.0, 1), "`ptr` has shape [1, 2], expected [1]"),
        ] {
            let error = enqueue_(&queue, &keys, &ptr).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let double = ptr(0).to_dtype(DType::F64).unwrap();
        let error = enqueue_(&queue, &[], &double).unwrap_err().to_string();
        assert!(error.contains("`ptr` is F64, expected u32"), "{error}");
        let sum = queue.sum_all().unwrap().to_scalar::<f64>().unwrap();
        assert!(sum == 0.0);
    }
}
