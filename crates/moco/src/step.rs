//! The order of a training step (MoCo v1 Algorithm 1; official `builder.py:128-173`,
//! `main_moco.py:416-430`).

use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Device, Tensor};
use moco_encoders::{Encoder, Head, HeadKind, Mode};
use moco_ops::{InfoNce, add, info_nce};
use moco_optim::{Optimizer, OptimizerConfig};
use moco_params::Gradients;
use moco_rng::Seed;

use crate::branch::{Branch, BranchSaved};
use crate::config::MocoConfig;
use crate::error::{During, MocoError};
use crate::inputs::Inputs;
use crate::queue::Queue;
use crate::shuffle::Shuffle;
use crate::statistics::PendingStep;

/// The method's whole state: both encoders, the queue and the optimizer.
#[derive(Debug)]
pub struct Moco {
    pub(crate) config: MocoConfig,
    pub(crate) seed: Seed,
    pub(crate) encoder_q: Branch,
    pub(crate) encoder_k: Branch,
    pub(crate) queue: Queue,
    pub(crate) optimizer: Box<dyn Optimizer>,
    pub(crate) global_step: u64,
    /// The tensors by a number: another one whenever they may have been replaced by others, so that a recorded
    /// step would work on those of before. No two models have the same.
    pub(crate) generation: u64,
}

/// The two views of a batch, `[N, 3, H, W]`.
#[derive(Debug, Clone)]
pub struct StepViews {
    /// The query's view.
    pub im_q: Tensor,
    /// The key's view.
    pub im_k: Tensor,
}

/// What a step computed.
#[derive(Debug)]
pub struct StepOutput {
    /// Queries `[N, C]`; with the symmetric loss those of both directions, `[2N, C]`.
    pub q: Tensor,
    /// Positives `[N, C]` or `[2N, C]`, in the order of `q`.
    pub k: Tensor,
    /// Gradient of each parameter of the query encoder.
    pub gradients: Gradients,
    /// The loss and how it came about.
    pub statistics: PendingStep,
}

/// What became of a step's inputs, by direction of the loss.
pub(crate) struct Computed {
    /// `[N, C]`.
    q: Vec<Tensor>,
    /// `[N, C]`.
    k: Vec<Tensor>,
    gradients: Gradients,
    pub(crate) statistics: PendingStep,
}

/// One direction of the loss, before its backward pass.
struct Direction {
    q: Tensor,
    saved: BranchSaved,
    k: Tensor,
}

impl Moco {
    /// f_q with a new head, f_k as its copy, and a random queue, on the encoder's device.
    ///
    /// # Errors
    /// If the queue is smaller than a step's keys would be, or memory cannot be had.
    pub fn new(
        encoder: Box<dyn Encoder>,
        head: HeadKind,
        config: MocoConfig,
        optimizer: impl Into<OptimizerConfig>,
        seed: Seed,
    ) -> Result<Self, MocoError> {
        let place = encoder.params().dtype_and_device();
        let (dtype, device) = place.unwrap_or((DType::F32, &Device::Cpu));
        let mut head = Head::new(head, encoder.feature_dim(), config.dim, seed, dtype)?;
        head.params_mut().to_device(device)?;
        let of_queue = config.queue_precision.dtype(dtype);
        let queue = Queue::random(seed, config.dim, config.queue_size, of_queue)?;
        let queue = queue.to_device(device)?;
        let encoder_q = Branch::new(encoder, head);
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

    /// One step with the shuffles of this step's number.
    ///
    /// # Errors
    /// If the images do not fit, or the loss is not finite (then no parameter, key or momentum buffer of
    /// the query encoder was updated). On a GPU a loss that is not finite is an error of
    /// [`PendingStep::read`], after the update.
    pub fn step(&mut self, views: &StepViews, lr: f64) -> Result<StepOutput, MocoError> {
        self.step_shuffled(views, &self.shuffles(views)?, lr)
    }

    /// One step with given permutations of the key images, one for each direction of the loss (the
    /// second is used by the symmetric loss only).
    ///
    /// # Errors
    /// As [`Moco::step`].
    pub fn step_shuffled(
        &mut self,
        views: &StepViews,
        shuffles: &[Shuffle; 2],
        lr: f64,
    ) -> Result<StepOutput, MocoError> {
        let inputs = Inputs::next(self, views, shuffles, lr)?;
        let inputs = inputs.upload(self.queue.keys().device())?;
        let Computed { q, k, gradients, statistics } = self.compute(&inputs)?;
        self.advance(views);
        let q = Tensor::cat(&q, 0).during("joining queries")?;
        let k = Tensor::cat(&k, 0).during("joining keys")?;
        Ok(StepOutput { q, k, gradients, statistics })
    }

    /// The permutations of the next step.
    pub(crate) fn shuffles(&self, views: &StepViews) -> Result<[Shuffle; 2], MocoError> {
        let n = views.im_q.dims()[0];
        let shuffle = |view| Shuffle::of_step(self.seed, self.global_step, view, n);
        Ok([shuffle(0)?, shuffle(1)?])
    }

    /// All that a step does to tensors; on a GPU, all that it queues.
    pub(crate) fn compute(&mut self, inputs: &Inputs) -> Result<Computed, MocoError> {
        let Inputs { views: StepViews { im_q, im_k }, shuffles, lr, ptr } = inputs;
        let n_keys = self.keys_of_step(&inputs.views);
        if n_keys > self.queue.size() {
            return Err(MocoError::QueueTooSmall { n_keys, queue_size: self.queue.size() });
        }
        // θ_k ← m·θ_k + (1 − m)·θ_q, with the θ_q of before this step's SGD: the first step is a no-op.
        self.encoder_k.follow(&self.encoder_q, self.config.key_momentum)?;
        let directions: Vec<Direction> = [(im_q, im_k), (im_k, im_q)]
            .into_iter()
            .zip(shuffles)
            .map(|((im_q, im_k), shuffle)| self.encode(im_q, im_k, shuffle))
            .collect::<Result<_, _>>()?;
        // Logits against the queue as it was before this step's keys.
        let losses: Vec<InfoNce> = directions
            .iter()
            .map(|d| info_nce(&d.q, &d.k, self.queue.keys(), self.config.temperature))
            .collect::<Result<_, _>>()?;
        let of_directions = losses.iter().map(|loss| loss.statistics.clone()).collect();
        let statistics = PendingStep { global_step: self.global_step, directions: of_directions };
        // On a GPU the host would have to wait for the loss: whoever reads it finds out.
        if statistics.is_at_hand() {
            statistics.read()?;
        }
        let mut gradients = Gradients::new();
        let (mut q, mut k) = (Vec::new(), Vec::new());
        for (direction, loss) in directions.into_iter().zip(&losses) {
            accumulate(&mut gradients, self.encoder_q.backward(direction.saved, &loss.dq)?)?;
            q.push(direction.q);
            k.push(direction.k);
        }
        self.optimizer.step(&self.encoder_q.stores(), &gradients, lr)?;
        // The notebook enqueues `cat(k1, k2)`: first the keys of view 1 (direction 2), then those of
        // view 2.
        self.queue.enqueue_at(&k.iter().rev().collect::<Vec<_>>(), ptr)?;
        Ok(Computed { q, k, gradients, statistics })
    }

    /// What a step does besides.
    pub(crate) fn advance(&mut self, views: &StepViews) {
        self.queue.advance(self.keys_of_step(views));
        self.global_step += 1;
    }

    fn keys_of_step(&self, views: &StepViews) -> usize {
        self.n_directions() * views.im_q.dims()[0]
    }

    /// Directions of the loss.
    pub(crate) fn n_directions(&self) -> usize {
        if self.config.symmetric { 2 } else { 1 }
    }

    fn encode(
        &mut self,
        im_q: &Tensor,
        im_k: &Tensor,
        shuffle: &Shuffle,
    ) -> Result<Direction, MocoError> {
        // Keys first: their activations are gone before those of the queries are kept.
        let k = if self.config.shuffle_bn {
            let k = self.encoder_k.project(&shuffle.apply(im_k)?, Mode::Train)?;
            shuffle.undo(&k)?
        } else {
            self.encoder_k.project(im_k, Mode::Train)?
        };
        let (q, saved) = self.encoder_q.forward(im_q)?;
        Ok(Direction { q, saved, k })
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

    /// f_q: the encoder that is evaluated and exported.
    #[must_use]
    pub fn encoder_q(&self) -> &Branch {
        &self.encoder_q
    }

    /// f_q, to compute features.
    pub fn encoder_q_mut(&mut self) -> &mut Branch {
        self.generation = next_generation();
        &mut self.encoder_q
    }

    /// f_k.
    #[must_use]
    pub fn encoder_k(&self) -> &Branch {
        &self.encoder_k
    }

    /// The negatives.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }
}

pub(crate) fn next_generation() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

fn accumulate(total: &mut Gradients, more: Gradients) -> Result<(), MocoError> {
    for (name, gradient) in more {
        let sum = match total.get(&name) {
            Some(so_far) => add(so_far, &gradient)?,
            None => gradient,
        };
        total.insert(name, sum);
    }
    Ok(())
}
