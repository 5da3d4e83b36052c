//! Algorithm 1 of MoCo v1 (He et al., arXiv:1911.05722): one training step, in the order of the official
//! `builder.py:128-173` and `main_moco.py:416-430`.
//!
//! The constants are in [`MocoConfig`](crate::MocoConfig), the terms in `batch.rs` (the two views),
//! `encoder_with_head.rs` (f_q and f_k), `shuffle.rs` (Shuffling BN) and `queue.rs`.

use candle_core::Tensor;
use moco_encoders::Mode;
use moco_ops::{InfoNce, info_nce};
use moco_params::Gradients;

use crate::batch::{Batch, Direction, StepInputs};
use crate::encoder_with_head::add_to;
use crate::error::MocoError;
use crate::model::Moco;
use crate::shuffle::Shuffle;
use crate::statistics::PendingStep;

/// The results of a step.
#[derive(Debug)]
pub struct StepOutput {
    /// Queries `[N, C]` of each direction of the loss: one, or two with the symmetric loss.
    pub q: Vec<Tensor>,
    /// Positive keys `[N, C]` of each direction, in the order of `q`.
    pub k: Vec<Tensor>,
    /// Gradient of each parameter of the query encoder.
    pub gradients: Gradients,
    /// The loss, and how it came about.
    pub statistics: PendingStep,
}

impl Moco {
    /// One step with the shuffles of this step's number.
    ///
    /// # Errors
    /// If the images do not fit, or the loss is not finite (then no parameter, no momentum buffer and no
    /// key in the queue was updated). On a GPU a loss that is not finite is an error of
    /// [`PendingStep::read`], after the update.
    pub fn step(&mut self, batch: &Batch, lr: f64) -> Result<StepOutput, MocoError> {
        self.run_step(batch, &self.shuffles(batch)?, lr)
    }

    /// One step with given permutations of the key images, one for each direction of the loss (only the
    /// symmetric loss uses the second).
    ///
    /// # Errors
    /// As [`Moco::step`].
    pub fn step_shuffled(
        &mut self,
        batch: &Batch,
        shuffles: &[Shuffle; 2],
        lr: f64,
    ) -> Result<StepOutput, MocoError> {
        self.run_step(batch, &shuffles[..self.config.n_directions()], lr)
    }

    fn run_step(
        &mut self,
        batch: &Batch,
        shuffles: &[Shuffle],
        lr: f64,
    ) -> Result<StepOutput, MocoError> {
        let inputs = self.inputs(batch, shuffles, lr)?.upload(self.device())?;
        let output = self.algorithm_1(&inputs)?;
        self.advance(batch);
        Ok(output)
    }

    /// All tensor work of a step. On a GPU it only queues work there, so that it can be captured.
    pub(crate) fn algorithm_1(&mut self, inputs: &StepInputs) -> Result<StepOutput, MocoError> {
        self.expect_room_in_queue(&inputs.batch)?;

        // Eq. (2): θ_k ← m·θ_k + (1 − m)·θ_q. It comes first, as in the official code, and so uses θ_q
        // before this step's SGD; the first step changes nothing.
        self.encoder_k.momentum_update(&self.encoder_q, self.config.key_momentum)?;

        let (mut q_of, mut k_of, mut losses) = (Vec::new(), Vec::new(), Vec::new());
        let mut gradients = Gradients::new();
        for Direction { im_q, im_k, shuffle } in inputs.batch.directions(&inputs.shuffles) {
            // The keys come first: their activations are freed before those of the queries are kept.
            let k = self.encode_keys(im_k, shuffle)?; // [N, C], no gradient
            let (q, saved) = self.encoder_q.forward(im_q)?; // [N, C]

            // Eq. (1): logits [N, 1 + K] against the queue as it was before this step.
            let InfoNce { dq, statistics } =
                info_nce(&q, &k, self.queue.keys(), self.config.temperature)?;
            self.encoder_q.backward(saved, &dq, &mut add_to(&mut gradients))?;
            q_of.push(q);
            k_of.push(k);
            losses.push(statistics);
        }
        let statistics = PendingStep { global_step: self.global_step, directions: losses };
        statistics.expect_finite_loss(&inputs.batch)?;

        self.optimizer.step(&self.encoder_q.stores(), &gradients, &inputs.lr)?;

        // The keys replace the oldest ones. With the symmetric loss the authors' notebook enqueues
        // cat(k1, k2): first the keys of view 1 (of the second direction), then those of view 2.
        self.queue.write(&k_of.iter().rev().collect::<Vec<_>>(), &inputs.queue_ptr)?;
        Ok(StepOutput { q: q_of, k: k_of, gradients, statistics })
    }

    /// Keys `[N, C]` of images `[N, 3, H, W]`, without gradient, by Shuffling BN (§3.3).
    fn encode_keys(&mut self, im_k: &Tensor, shuffle: &Shuffle) -> Result<Tensor, MocoError> {
        if !self.config.shuffle_bn {
            return self.encoder_k.encode(im_k, Mode::Train);
        }
        let k = self.encoder_k.encode(&shuffle.apply(im_k)?, Mode::Train)?;
        shuffle.undo(&k)
    }
}
