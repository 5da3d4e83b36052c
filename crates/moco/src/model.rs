//! The state of the method: both encoders, the queue, the optimizer.

use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::Device;
use moco_encoders::{Encoder, HeadKind};
use moco_ops::info_nce;
use moco_optim::{Optimizer, OptimizerConfig, learning_rate};
use moco_rng::Seed;

use crate::batch::{Batch, StepInputs};
use crate::config::MocoConfig;
use crate::encoder_with_head::EncoderWithHead;
use crate::error::MocoError;
use crate::inspect::{Leak, top1_under};
use crate::queue::Queue;
use crate::shuffle::Shuffle;

/// The method's whole state. [`Moco::step`] is one step of training.
#[derive(Debug)]
pub struct Moco {
    pub(crate) config: MocoConfig,
    pub(crate) seed: Seed,
    pub(crate) encoder_q: EncoderWithHead,
    pub(crate) encoder_k: EncoderWithHead,
    pub(crate) queue: Queue,
    pub(crate) optimizer: Box<dyn Optimizer>,
    pub(crate) global_step: u64,
    /// Identifies the current set of tensors. It changes whenever a tensor may have been replaced, which
    /// invalidates captured CUDA graphs. No two models have the same.
    pub(crate) generation: u64,
}

impl Moco {
    /// f_q with a new head, f_k as its copy, and a random queue, on the encoder's device.
    ///
    /// # Errors
    /// If the queue is smaller than a step's keys would be, or memory runs out.
    pub fn new(
        encoder: Box<dyn Encoder>,
        head: HeadKind,
        config: MocoConfig,
        optimizer: impl Into<OptimizerConfig>,
        seed: Seed,
    ) -> Result<Self, MocoError> {
        let encoder_q = EncoderWithHead::new(encoder, head, config.dim, seed)?;
        let queue_dtype = config.queue_precision.dtype(encoder_q.dtype());
        let queue = Queue::random(seed, config.dim, config.queue_size, queue_dtype)?;
        let queue = queue.to_device(encoder_q.device())?;
        let encoder_k = encoder_q.fork()?;
        let optimizer = optimizer.into().build(&encoder_q.stores())?;
        Ok(Self {
            config,
            seed,
            encoder_q,
            encoder_k,
            queue,
            optimizer,
            global_step: 0,
            generation: next_generation(),
        })
    }

    /// Steps done.
    #[must_use]
    pub fn global_step(&self) -> u64 {
        self.global_step
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &MocoConfig {
        &self.config
    }

    /// The model's device.
    #[must_use]
    pub fn device(&self) -> &Device {
        self.queue.keys().device()
    }

    /// f_q: the encoder that is evaluated and exported.
    #[must_use]
    pub fn encoder_q(&self) -> &EncoderWithHead {
        &self.encoder_q
    }

    /// f_q, to compute features.
    pub fn encoder_q_mut(&mut self) -> &mut EncoderWithHead {
        self.generation = next_generation();
        &mut self.encoder_q
    }

    /// f_k.
    #[must_use]
    pub fn encoder_k(&self) -> &EncoderWithHead {
        &self.encoder_k
    }

    /// The negatives.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Pretext accuracies of the next step's batch with its keys in the groups of training and in other ones,
    /// drawn for this purpose from `seed`. Changes nothing.
    ///
    /// # Errors
    /// If the images do not fit.
    pub fn leak(&self, seed: Seed, batch: &Batch) -> Result<Leak, MocoError> {
        let as_trained = match self.config.shuffle_bn {
            true => self.shuffles(batch)?.into_iter().next(),
            false => None,
        };
        let as_trained = as_trained.map(|shuffle| shuffle.upload(self.device())).transpose()?;
        // As the step will: the queue's newest keys are of the encoder before this update.
        let mut encoder_k = self.encoder_k.fork()?;
        encoder_k.momentum_update(&self.encoder_q, self.config.key_momentum)?;
        let encoders = [&self.encoder_q, &encoder_k];
        top1_under(encoders, seed, self.global_step, batch, as_trained.as_ref(), &|q, k| {
            Ok(info_nce(q, k, self.queue.keys(), self.config.temperature)?.statistics.read()?)
        })
    }

    /// The permutations of the next step's key images, one for each direction of the loss.
    pub(crate) fn shuffles(&self, batch: &Batch) -> Result<Vec<Shuffle>, MocoError> {
        let (n, n_directions) = (batch.im_q.dims()[0], self.config.n_directions());
        Shuffle::of_directions(self.seed, self.global_step, n_directions, n)
    }

    /// The next step's inputs, with one permutation for each direction of the loss; all but the views are in
    /// host memory.
    pub(crate) fn inputs(
        &self,
        batch: &Batch,
        shuffles: &[Shuffle],
        lr: f64,
    ) -> Result<StepInputs, MocoError> {
        Ok(StepInputs {
            batch: batch.clone(),
            shuffles: shuffles.to_vec(),
            lr: learning_rate(lr, self.encoder_q.dtype(), &Device::Cpu)?,
            queue_ptr: self.queue.ptr_tensor()?,
        })
    }

    /// Moves the queue pointer and the step counter past a step (both are on the host).
    pub(crate) fn advance(&mut self, batch: &Batch) {
        self.queue.advance(self.n_keys(batch));
        self.global_step += 1;
    }

    /// Keys that a step adds to the queue.
    fn n_keys(&self, batch: &Batch) -> usize {
        self.config.n_directions() * batch.im_q.dims()[0]
    }

    pub(crate) fn expect_room_in_queue(&self, batch: &Batch) -> Result<(), MocoError> {
        let (n_keys, queue_size) = (self.n_keys(batch), self.queue.size());
        if n_keys > queue_size {
            return Err(MocoError::QueueTooSmall { n_keys, queue_size });
        }
        Ok(())
    }
}

pub(crate) fn next_generation() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}
