//! Training steps from a file to a file: the door for parity checks from any language.
//!
//! Input, one safetensors file: the state (`encoder_q.*`, `encoder_k.*` with torchvision's names and
//! `fc.*`, `queue` `[C, K]`, `queue_ptr` `[1]` i64; `sgd.*`, or `lars.*`, may be left out for a first step), and for
//! each step i = 0, 1, …: `step{i}.im_q`, `step{i}.im_k` `[N, 3, H, W]`, `step{i}.lr` `[1]`,
//! optionally `step{i}.shuffle` `[N]` (and `step{i}.shuffle1` for the second direction of the symmetric
//! loss): the image at place j of the key encoder's batch is `shuffle[j]`. The type of
//! `encoder_q.conv1.weight` or any other parameter, f32 or f64, is the type of all arithmetic.
//!
//! Output: for each step `step{i}.loss` `[1]` f64, `step{i}.q`, `step{i}.k`, `step{i}.grad.NAME`, and the
//! state after the last step with the names of the input.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use candle_core::{DType, Device, Tensor};
use moco::{Batch, Moco, MocoState, Shuffle};
use moco_cli::{Exit, usage};
use moco_ops::Precision;
use moco_train::{PretrainPlan, build_encoder};

/// How many steps to do, and of how many of them to write the gradients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) steps: usize,
    pub(crate) gradients: usize,
}

/// Does every step that `input` holds views for, within the limits, with the network, the method and the
/// optimizer of a plan, and writes `output`; gives the losses.
pub(crate) fn run_step_file(
    plan: &PretrainPlan,
    device: &Device,
    input: &Path,
    output: &Path,
    limits: Limits,
) -> anyhow::Result<Vec<f64>> {
    let of_input = || format!("reading {}", input.display());
    let tensors = candle_core::safetensors::load(input, &Device::Cpu).with_context(of_input)?;
    let tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    let file = StepFile { plan, device, path: input, tensors };
    let (results, losses) = file.run(limits)?;
    let on_host = results.into_iter().map(|(name, x)| Ok((name, x.to_device(&Device::Cpu)?)));
    let results: BTreeMap<String, Tensor> = on_host.collect::<candle_core::Result<_>>()?;
    safetensors::serialize_to_file(&results, None, output)
        .with_context(|| format!("writing {}", output.display()))?;
    Ok(losses)
}

/// An input file and what it is to be computed with.
struct StepFile<'a> {
    plan: &'a PretrainPlan,
    device: &'a Device,
    path: &'a Path,
    tensors: BTreeMap<String, Tensor>,
}

impl StepFile<'_> {
    fn run(&self, limits: Limits) -> anyhow::Result<(BTreeMap<String, Tensor>, Vec<f64>)> {
        let mut moco = self.model()?;
        let mut results = BTreeMap::new();
        let mut losses = Vec::new();
        for step in 0..limits.steps {
            if step > 0 && !self.tensors.contains_key(&format!("step{step}.im_q")) {
                break;
            }
            let [im_q, im_k] = ["im_q", "im_k"].map(|name| self.activations(step, name));
            let batch = Batch { im_q: im_q?, im_k: im_k?, sample_indices: Vec::new() };
            let shuffles = [self.shuffle(step, 0, &batch)?, self.shuffle(step, 1, &batch)?];
            let output = moco.step_shuffled(&batch, &shuffles, self.lr(step)?)?;
            let loss = output.statistics.read()?.loss;
            losses.push(loss);
            results.insert(format!("step{step}.loss"), Tensor::new(&[loss], &Device::Cpu)?);
            for (name, directions) in [("q", &output.q), ("k", &output.k)] {
                results.insert(format!("step{step}.{name}"), Tensor::cat(directions, 0)?);
            }
            if step < limits.gradients {
                for (name, gradient) in output.gradients {
                    results.insert(format!("step{step}.grad.{name}"), gradient);
                }
            }
        }
        results.extend(moco.state()?);
        Ok((results, losses))
    }

    /// A tensor that the file must have.
    fn need(&self, name: &str) -> anyhow::Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| self.wrong(&format!("lacks tensor `{name}`")))
    }

    fn wrong(&self, what: &str) -> anyhow::Error {
        usage(Exit::DataOrMachine, format!("{}: {what}", self.path.display()))
    }

    fn lr(&self, step: usize) -> anyhow::Result<f64> {
        let name = format!("step{step}.lr");
        let lr = self.need(&name)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let [lr] = lr[..] else {
            return Err(self.wrong(&format!("{name} has {} numbers, expected 1", lr.len())));
        };
        Ok(lr)
    }

    /// The permutation of the key images for one direction of the loss: the file's, or that of the seed.
    fn shuffle(&self, step: usize, direction: u32, batch: &Batch) -> anyhow::Result<Shuffle> {
        let n = batch.im_q.dims()[0];
        let name = ["shuffle", "shuffle1"][direction as usize];
        let name = format!("step{step}.{name}");
        let Some(order) = self.tensors.get(&name) else {
            return Ok(Shuffle::of_step(self.plan.seed, step as u64, direction, n)?);
        };
        let order = order.to_dtype(DType::U32)?.flatten_all()?.to_vec1::<u32>()?;
        if order.len() != n {
            let expected = format!("{name} has {} indices, expected {n}", order.len());
            return Err(self.wrong(&expected));
        }
        Shuffle::new(&order).map_err(|error| self.wrong(&format!("{name}: {error}")))
    }

    /// A step's images as the encoders take them.
    fn activations(&self, step: usize, name: &str) -> anyhow::Result<Tensor> {
        let images = self.need(&format!("step{step}.{name}"))?.to_device(self.device)?;
        Ok(match self.plan.precision {
            // f64 stays what it is.
            Precision::F32 | Precision::Tf32 => images,
            Precision::Bf16 => images.to_dtype(DType::BF16)?,
        })
    }

    /// A model with the file's state.
    fn model(&self) -> anyhow::Result<Moco> {
        let is_state = |name: &str| !name.starts_with("step");
        let tensors = self.tensors.iter().filter(|(name, _)| is_state(name));
        let mut state: MocoState =
            tensors.map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
        let is_weight = |name: &str| name.starts_with("encoder_q.") && name.ends_with("weight");
        let dtype = state
            .iter()
            .find(|(name, _)| is_weight(name))
            .map(|(_, tensor)| tensor.dtype())
            .ok_or_else(|| self.wrong("lacks the tensors `encoder_q.*`"))?;
        let plan = self.plan;
        let encoder = build_encoder(plan, dtype, self.device)?;
        let mut moco = Moco::new(encoder, plan.head, plan.moco.clone(), plan.optimizer, plan.seed)?;
        let of_optimizer = format!("{}.", plan.optimizer.name());
        for (name, tensor) in moco.state()? {
            let may_be_left_out =
                name.starts_with(&of_optimizer) || name.ends_with("num_batches_tracked");
            if may_be_left_out {
                state.entry(name).or_insert(tensor);
            }
        }
        moco.load_state(&state, 0).with_context(|| self.path.display().to_string())?;
        Ok(moco)
    }
}
