//! The dictionary of negatives as a ring.

use candle_core::{DType, Device, Tensor};
use moco_ops::{enqueue_, upload};
use moco_rng::{At, Purpose, Seed};

use crate::error::{During, MocoError};

/// K keys, first in, first out (MoCo v1 §3.2; official `builder.py:50-53, 65-79`).
#[derive(Debug)]
pub struct Queue {
    /// `[C, K]`, one unit column a key; the official buffer's layout.
    keys: Tensor,
    /// The column that the next key goes to.
    ptr: usize,
}

impl Queue {
    /// A queue of normalized random keys, `[dim, queue_size]`, pointer 0, stored as `dtype`.
    ///
    /// # Errors
    /// If memory cannot be had.
    pub fn random(
        seed: Seed,
        dim: usize,
        queue_size: usize,
        dtype: DType,
    ) -> Result<Self, MocoError> {
        let mut keys = vec![0.0_f64; dim * queue_size];
        let mut stream = seed.stream(Purpose::Queue, At::default());
        for column in 0..queue_size {
            let key: Vec<f64> = (0..dim).map(|_| stream.normal()).collect();
            let norm = key.iter().map(|x| x * x).sum::<f64>().sqrt();
            for (row, value) in key.iter().enumerate() {
                keys[row * queue_size + column] = value / norm;
            }
        }
        let keys = Tensor::from_vec(keys, (dim, queue_size), &Device::Cpu)
            .and_then(|keys| keys.to_dtype(dtype))
            .during("filling the queue")?;
        Ok(Self { keys, ptr: 0 })
    }

    /// The same queue on a device.
    ///
    /// # Errors
    /// If memory cannot be had.
    pub fn to_device(&self, device: &Device) -> Result<Self, MocoError> {
        let keys = self.keys.to_device(device).during("moving the queue")?;
        Ok(Self { keys, ptr: self.ptr })
    }

    /// A queue with this content; takes a copy.
    ///
    /// # Errors
    /// If `keys` is not a matrix or the pointer is outside it.
    pub fn from_parts(keys: &Tensor, ptr: usize) -> Result<Self, MocoError> {
        let (_, queue_size) = keys.dims2().during("reading the queue")?;
        if ptr >= queue_size {
            return Err(MocoError::QueuePointer { queue_size, got: ptr });
        }
        let keys = keys.contiguous().and_then(|keys| keys.copy()).during("copying the queue")?;
        Ok(Self { keys: keys.detach(), ptr })
    }

    /// The keys `[C, K]`. A view: enqueueing changes it.
    #[must_use]
    pub fn keys(&self) -> &Tensor {
        &self.keys
    }

    /// The column that the next key goes to.
    #[must_use]
    pub fn ptr(&self) -> usize {
        self.ptr
    }

    /// K.
    #[must_use]
    pub fn size(&self) -> usize {
        self.keys.dims()[1]
    }

    /// Replaces the oldest keys by those of each tensor `[N, C]`, one after the other. The ring wraps
    /// exactly, also where K is no multiple of N (the official code asserts that it is: deviation D3).
    ///
    /// # Errors
    /// If there are more keys than K or the widths differ.
    pub fn enqueue(&mut self, keys: &[&Tensor]) -> Result<(), MocoError> {
        self.write(keys, &upload(&self.ptr_tensor()?, self.keys.device())?)?;
        self.advance(keys.iter().map(|keys| keys.dims()[0]).sum());
        Ok(())
    }

    /// The pointer as u32 `[1]`, in the host's memory.
    pub(crate) fn ptr_tensor(&self) -> Result<Tensor, MocoError> {
        let ptr = u32::try_from(self.ptr).unwrap_or(u32::MAX);
        Tensor::new(&[ptr], &Device::Cpu).during("reading the queue's pointer")
    }

    /// Writes keys from column `ptr` (u32 `[1]`) on; the pointer itself stays.
    pub(crate) fn write(&mut self, keys: &[&Tensor], ptr: &Tensor) -> Result<(), MocoError> {
        Ok(enqueue_(&self.keys, keys, ptr)?)
    }

    /// Moves the pointer (on the host) past `n_keys` keys.
    pub(crate) fn advance(&mut self, n_keys: usize) {
        self.ptr = (self.ptr + n_keys) % self.size();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::QueuePrecision;

    fn column(queue: &Queue, column: usize) -> Vec<f32> {
        let column = queue.keys().narrow(1, column, 1).unwrap().to_dtype(DType::F32).unwrap();
        column.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn starts_with_unit_columns_that_differ() {
        for (precision, tolerance) in
            [(QueuePrecision::AsParameters, 1e-6), (QueuePrecision::Bf16, 2.0_f32.powi(-8))]
        {
            let dtype = precision.dtype(DType::F32);
            let queue = Queue::random(Seed(1), 8, 50, dtype).unwrap();
            assert_eq!(queue.keys().dtype(), dtype);
            for i in 0..50 {
                let norm = column(&queue, i).iter().map(|x| x * x).sum::<f32>().sqrt();
                assert!((norm - 1.0).abs() < tolerance, "column {i}: {norm}");
                assert_ne!(column(&queue, i), column(&queue, (i + 1) % 50));
            }
            assert_eq!(queue.ptr(), 0);
        }
        let dtypes = [QueuePrecision::AsParameters, QueuePrecision::Bf16];
        assert_eq!(dtypes.map(|dtype| dtype.dtype(DType::F64)), [DType::F64, DType::BF16]);
    }

    /// `[N, 1]`: keys that count on from `first`.
    fn keys(first: usize, n: usize) -> Tensor {
        let keys: Vec<f32> = (first..first + n).map(|key| key as f32).collect();
        Tensor::from_vec(keys, (n, 1), &Device::Cpu).unwrap()
    }

    /// Against a plain list of "which key is in this column", for sizes that do and do not divide, with the
    /// keys of a step in one tensor or several.
    #[test]
    fn is_a_ring_for_any_batch() {
        for (queue_size, steps) in [
            (6, vec![vec![2], vec![2], vec![2], vec![2]]),
            (7, vec![vec![3]; 5]),
            (5, vec![vec![5], vec![4], vec![1]]),
            (7, vec![vec![2, 1]; 5]),
            (9, vec![vec![4, 4]; 5]),
            (5, vec![vec![3, 0, 2], vec![1, 3], vec![]]),
        ] {
            let mut queue = Queue::random(Seed(1), 1, queue_size, DType::F32).unwrap();
            let mut expected: Vec<Option<f32>> = vec![None; queue_size];
            let mut position = 0;
            for lens in steps {
                let mut tensors = Vec::new();
                for n in lens {
                    tensors.push(keys(10 + position, n));
                    for column in position..position + n {
                        expected[column % queue_size] = Some(10.0 + column as f32);
                    }
                    position += n;
                }
                queue.enqueue(&tensors.iter().collect::<Vec<_>>()).unwrap();
                assert_eq!(queue.ptr(), position % queue_size);
                for (i, key) in expected.iter().enumerate() {
                    assert!(key.is_none_or(|key| column(&queue, i) == [key]), "column {i}");
                }
            }
        }
    }

    /// The device writes at the given column, whatever the host counts; the host counts by itself.
    #[test]
    fn the_two_parts_of_enqueueing_are_independent() {
        let mut queue = Queue::random(Seed(1), 1, 5, DType::F32).unwrap();
        queue.advance(3);
        queue.advance(4);
        assert_eq!(queue.ptr(), 2);
        let at = Tensor::new(&[4_u32], &Device::Cpu).unwrap();
        queue.write(&[&keys(10, 1), &keys(20, 1)], &at).unwrap();
        assert_eq!([column(&queue, 4), column(&queue, 0)], [[10.0], [20.0]]);
        assert_eq!(queue.ptr(), 2);
    }

    #[test]
    fn refuses_what_does_not_fit_and_stays_as_it_is() {
        let mut queue = Queue::random(Seed(1), 1, 2, DType::F32).unwrap();
        let before = [column(&queue, 0), column(&queue, 1)];
        let [two, one] = [keys(1, 2), keys(3, 1)];
        let wide = two.reshape((1, 2)).unwrap();
        for (keys, expected) in [
            ([&two, &one], "enqueue: `keys` has shape [3, 1], expected at most 2 keys"),
            ([&one, &wide], "enqueue: `keys` has shape [1, 2], expected [1, 1]"),
        ] {
            assert_eq!(queue.enqueue(&keys).unwrap_err().to_string(), expected);
        }
        assert_eq!([column(&queue, 0), column(&queue, 1)], before);
        assert_eq!(queue.ptr(), 0);
    }

    #[test]
    fn from_parts_copies() {
        let keys = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        let mut queue = Queue::from_parts(&keys, 1).unwrap();
        queue.enqueue(&[&Tensor::ones((1, 2), DType::F32, &Device::Cpu).unwrap()]).unwrap();
        assert_eq!(column(&queue, 1), [1.0, 1.0]);
        let original = keys.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(original.iter().all(|x| *x == 0.0));
        assert_eq!(
            Queue::from_parts(&keys, 3).unwrap_err().to_string(),
            "queue_ptr is 3, but the queue has columns 0 to 2"
        );
    }
}
