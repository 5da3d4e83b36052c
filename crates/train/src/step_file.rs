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

use candle_core::{DType, Device, Tensor};
use moco::{Moco, MocoConfig, MocoState, Shuffle, StepViews};
use moco_encoders::{EncoderConfig, HeadKind};
use moco_ops::Precision;
use moco_optim::OptimizerConfig;
use moco_rng::Seed;

use crate::error::{During, TrainError};

/// What a step file does not hold: the network and the method.
#[derive(Debug, Clone)]
pub struct StepConfig {
    /// The backbone.
    pub encoder: EncoderConfig,
    /// The projection.
    pub head: HeadKind,
    /// The method.
    pub moco: MocoConfig,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// Where to compute.
    pub device: Device,
    /// How a GPU stores and multiplies activations; f32 and f64 files on a CPU need f32.
    pub precision: Precision,
    /// Seed of the shuffles that the file does not give.
    pub seed: Seed,
}

/// Does every step that `input` holds views for, at most `n_steps`, and writes `output`, with the
/// gradients of the first `n_gradients` steps; gives the losses.
///
/// # Errors
/// If a tensor is missing or does not fit the configuration.
pub fn run_step_file(
    config: &StepConfig,
    input: &Path,
    output: &Path,
    (n_steps, n_gradients): (usize, usize),
) -> Result<Vec<f64>, TrainError> {
    let tensors =
        candle_core::safetensors::load(input, &Device::Cpu).during("reading the input")?;
    let tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    let (results, losses) =
        run_steps(config, &tensors, (n_steps, n_gradients)).map_err(|error| match error {
            TrainError::Content { what, .. } => {
                TrainError::Content { path: input.to_owned(), what }
            }
            error => error,
        })?;
    let on_host =
        results.into_iter().map(|(name, tensor)| Ok((name, tensor.to_device(&Device::Cpu)?)));
    let results: BTreeMap<String, Tensor> =
        on_host.collect::<candle_core::Result<_>>().during("reading the results")?;
    safetensors::serialize_to_file(&results, None, output)
        .map_err(|e| TrainError::Content { path: output.to_owned(), what: e.to_string() })?;
    Ok(losses)
}

fn run_steps(
    config: &StepConfig,
    tensors: &BTreeMap<String, Tensor>,
    (n_steps, n_gradients): (usize, usize),
) -> Result<(BTreeMap<String, Tensor>, Vec<f64>), TrainError> {
    let mut moco = model(config, tensors)?;
    let mut results = BTreeMap::new();
    let mut losses = Vec::new();
    for step in 0..n_steps {
        let get = |name: &str| tensors.get(&format!("step{step}.{name}"));
        let need = |name: &str| get(name).ok_or_else(|| lacks(&format!("step{step}.{name}")));
        if get("im_q").is_none() && step > 0 {
            break;
        }
        let [im_q, im_k] = [need("im_q")?, need("im_k")?].map(|images| activations(config, images));
        let lr =
            need("lr")?.to_dtype(DType::F64).and_then(|lr| lr.flatten_all()?.get(0)?.to_scalar());
        let n = need("im_q")?.dims()[0];
        let shuffle = |name: &str, view: u32| -> Result<Shuffle, TrainError> {
            let Some(order) = get(name) else {
                return Ok(Shuffle::of_step(config.seed, moco.global_step(), view, n)?);
            };
            let order = order.to_dtype(DType::U32).and_then(|order| order.to_vec1::<u32>());
            Ok(Shuffle::new(&order.during("reading a shuffle")?)?)
        };
        let shuffles = [shuffle("shuffle", 0)?, shuffle("shuffle1", 1)?];
        let views = StepViews { im_q: im_q?, im_k: im_k? };
        let output = moco.step_shuffled(&views, &shuffles, lr.during("reading lr")?)?;
        let loss = output.statistics.read()?.loss;
        losses.push(loss);
        let loss = Tensor::new(&[loss], &Device::Cpu).during("the loss")?;
        results.insert(format!("step{step}.loss"), loss);
        results.insert(format!("step{step}.q"), output.q);
        results.insert(format!("step{step}.k"), output.k);
        let gradients = if step < n_gradients { output.gradients } else { BTreeMap::new() };
        for (name, gradient) in gradients {
            results.insert(format!("step{step}.grad.{name}"), gradient);
        }
    }
    results.extend(moco.state()?);
    Ok((results, losses))
}

/// Images as the encoders of a configuration take them.
fn activations(config: &StepConfig, images: &Tensor) -> Result<Tensor, TrainError> {
    let images = images.to_device(&config.device);
    let images = match config.precision {
        // f64 stays what it is.
        Precision::F32 | Precision::Tf32 => images,
        Precision::Bf16 => images.and_then(|images| images.to_dtype(DType::BF16)),
    };
    images.during("uploading views")
}

/// A model with the file's state.
fn model(config: &StepConfig, tensors: &BTreeMap<String, Tensor>) -> Result<Moco, TrainError> {
    let is_state = |name: &str| !name.starts_with("step");
    let mut state: MocoState = tensors
        .iter()
        .filter(|(name, _)| is_state(name))
        .map(|(name, tensor)| (name.clone(), tensor.clone()))
        .collect();
    let dtype = state
        .iter()
        .find(|(name, _)| name.starts_with("encoder_q.") && name.ends_with("weight"))
        .map(|(_, tensor)| tensor.dtype())
        .ok_or_else(|| lacks("encoder_q.*"))?;
    let encoder = config.encoder.build(config.seed, dtype, &config.device)?;
    let mut moco =
        Moco::new(encoder, config.head, config.moco.clone(), config.optimizer, config.seed)?;
    let of_optimizer = format!("{}.", config.optimizer.name());
    for (name, tensor) in moco.state()? {
        let may_be_left_out =
            name.starts_with(&of_optimizer) || name.ends_with("num_batches_tracked");
        if may_be_left_out {
            state.entry(name).or_insert(tensor);
        }
    }
    moco.load_state(&state, 0)?;
    Ok(moco)
}

fn lacks(name: &str) -> TrainError {
    TrainError::Content { path: std::path::PathBuf::new(), what: format!("lacks tensor `{name}`") }
}
