//! The phases of a step one by one, in the order of `crates/moco/src/algorithm_1.rs`, with the device waited for
//! around each.

use candle_core::{DType, Device};
use moco::{Batch, EncoderWithHead, Queue, Shuffle};
use moco_encoders::Mode;
use moco_ops::info_nce;
use moco_optim::{Optimizer as _, Sgd, learning_rate};
use moco_params::Gradients;
use serde_json::{Value, json};

use super::args::Args;
use super::setup::{KEY_MOMENTUM, LR, SEED, SGD, Setup, TEMPERATURE};
use super::timing::{median, timed};

/// Steps before the first that counts: memory is taken and algorithms are looked up in them.
const WARMUP: u32 = 3;

/// Milliseconds of each phase, one number a step.
#[derive(Debug, Default)]
pub(super) struct Phases {
    query_forward: Vec<f64>,
    /// With the shuffle and its inverse.
    key_forward: Vec<f64>,
    /// With its gradient to the queries, and with the keys' way into the queue.
    loss: Vec<f64>,
    backward: Vec<f64>,
    /// SGD and the momentum update.
    optimizer: Vec<f64>,
}

impl Phases {
    pub(super) fn json(&self) -> Value {
        json!({
            "query_forward": median(&self.query_forward),
            "key_forward": median(&self.key_forward),
            "loss": median(&self.loss),
            "backward": median(&self.backward),
            "optimizer": median(&self.optimizer),
        })
    }
}

pub(super) fn measure(setup: &Setup, views: &Batch, args: &Args) -> anyhow::Result<Phases> {
    let encoder_q = setup.branch()?;
    let mut parts = Parts {
        encoder_k: encoder_q.fork()?,
        sgd: Sgd::new(SGD, &encoder_q.stores())?,
        encoder_q,
        queue: setup.queue()?,
        device: setup.device.clone(),
    };
    for step in 0..WARMUP {
        parts.step(views, step, &mut Phases::default())?;
    }
    let mut phases = Phases::default();
    for step in 0..args.steps {
        parts.step(views, WARMUP + step, &mut phases)?;
    }
    Ok(phases)
}

/// What a step needs; `Moco` keeps its own to itself.
struct Parts {
    encoder_q: EncoderWithHead,
    encoder_k: EncoderWithHead,
    sgd: Sgd,
    queue: Queue,
    device: Device,
}

impl Parts {
    fn step(&mut self, views: &Batch, step: u32, phases: &mut Phases) -> anyhow::Result<()> {
        let Self { encoder_q, encoder_k, sgd, queue, device } = self;
        let Batch { im_q, im_k, .. } = views;
        let ((), momentum_update) =
            timed(device, || Ok(encoder_k.momentum_update(encoder_q, KEY_MOMENTUM)?))?;
        let (k, key_forward) = timed(device, || {
            let shuffle = Shuffle::of_step(SEED, u64::from(step), 0, im_k.dims()[0])?;
            let shuffle = shuffle.upload(device)?;
            Ok(shuffle.undo(&encoder_k.encode(&shuffle.apply(im_k)?, Mode::Train)?)?)
        })?;
        let ((q, saved), query_forward) = timed(device, || Ok(encoder_q.forward(im_q)?))?;
        let (loss, ms_of_loss) = timed(device, || {
            let loss = info_nce(&q, &k, queue.keys(), TEMPERATURE)?;
            queue.enqueue(&[&k])?;
            Ok(loss)
        })?;
        let mut gradients = Gradients::new();
        let mut collect = |name, gradient| {
            gradients.insert(name, gradient);
            Ok(())
        };
        let ((), backward) =
            timed(device, || Ok(encoder_q.backward(saved, &loss.dq, &mut collect)?))?;
        let ((), sgd) = timed(device, || {
            let lr = learning_rate(LR, DType::F32, device)?;
            Ok(sgd.step(&encoder_q.stores(), &gradients, &lr)?)
        })?;
        phases.query_forward.push(query_forward);
        phases.key_forward.push(key_forward);
        phases.loss.push(ms_of_loss);
        phases.backward.push(backward);
        phases.optimizer.push(sgd + momentum_update);
        Ok(())
    }
}
