//! The statistics of a batch's loss: ready on the CPU, on a GPU after a synchronization.

use candle_core::Tensor;

use crate::backend;
use crate::copy::copy_;
use crate::error::{InOp, OpError};

pub(super) const OP: &str = "info_nce";

/// Numbers of a batch for people and for health rules; no gradient needs them.
#[derive(Debug, Clone, PartialEq)]
pub struct InfoNceStatistics {
    /// Mean cross entropy of the positive among the 1 + K logits.
    pub loss: f64,
    /// For each query the positive's rank: the number of negatives whose logit is not below its own.
    /// 0 = top-1 correct, below 5 = top-5 correct; a tie counts against the positive, so that a collapsed encoder
    /// does not look perfect, and so does NaN.
    pub positive_rank: Vec<u32>,
    /// Mean cosine of query and positive.
    pub positive_cosine: f64,
    /// Mean cosine of query and negatives.
    pub negative_cosine: f64,
}

/// Statistics that may not have been computed yet. They hold a few bytes a query and nothing else.
#[derive(Debug, Clone)]
pub struct PendingStatistics(Memory);

#[derive(Debug, Clone)]
enum Memory {
    Host(InfoNceStatistics),
    /// `[N, 4]`: loss, rank of the positive (exact below 2^24), cosine to the positive, mean cosine to the
    /// negatives.
    Device(Tensor),
}

impl PendingStatistics {
    /// Statistics that were computed on the host.
    #[must_use]
    pub fn ready(statistics: InfoNceStatistics) -> Self {
        Self(Memory::Host(statistics))
    }

    pub(super) fn on_device(queries: Tensor) -> Self {
        Self(Memory::Device(queries))
    }

    /// The same numbers, once they are computed, in memory of their own.
    ///
    /// # Errors
    /// If there is no room.
    pub fn copy(&self) -> Result<Self, OpError> {
        let Memory::Device(queries) = &self.0 else { return Ok(self.clone()) };
        let gpu = backend::expect(OP, queries.device())?;
        let copy = gpu.alloc(OP, queries.dims(), queries.dtype())?;
        copy_(&copy, queries)?;
        Ok(Self::on_device(copy))
    }

    /// Takes over the numbers of other statistics of as many queries, in the same memory.
    ///
    /// # Errors
    /// If they are not both on one GPU, or of another number of queries.
    pub fn replace(&self, by: &Self) -> Result<(), OpError> {
        match (&self.0, &by.0) {
            (Memory::Device(to), Memory::Device(from)) => copy_(to, from),
            _ => Err(OpError::OnlyGpu { op: OP, instead: "a clone" }),
        }
    }

    /// True if [`PendingStatistics::read`] returns at once; on a GPU it synchronizes.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.0, Memory::Host(_))
    }

    /// The numbers.
    ///
    /// # Errors
    /// If something failed on the device.
    pub fn read(&self) -> Result<InfoNceStatistics, OpError> {
        let queries = match &self.0 {
            Memory::Host(statistics) => return Ok(statistics.clone()),
            Memory::Device(queries) => queries.to_vec2::<f32>().in_op(OP)?,
        };
        let mean = |i: usize| {
            let sum: f64 = queries.iter().map(|query| f64::from(query[i])).sum();
            sum / count(queries.len())
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let positive_rank = queries.iter().map(|query| query[1] as u32).collect();
        Ok(InfoNceStatistics {
            loss: mean(0),
            positive_rank,
            positive_cosine: mean(2),
            negative_cosine: mean(3),
        })
    }
}

/// A number of queries or keys.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(super) fn count(n: usize) -> f64 {
    n as f64
}
