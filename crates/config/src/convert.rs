//! From what was written to what is meant: checks each value and builds the plans.

use moco_augment::{AugmentError, Exif, Fidelity, Recipe, RecipeConfig, RecipeKind};
use moco_ops::{ConvBackend, Precision};
use moco_optim::Schedule;
use moco_rng::Seed;
use moco_train::{
    Cadence, DataPlan, EvaluationActivations, EvaluationPlan, FinishOn, HealthPlan, InputPlan,
    KnnPlan, Length, LinearPlan, Pairing, PretrainPlan,
};

use crate::check::{above_zero, ascending, at_least_one, momentum, not_negative, present, unused};
use crate::complaint::Complaint;
use crate::data::{RawExif, data_plan, on_bad_sample, window_shards};
use crate::encoder::{check_on_gpu, encoder_plan};
use crate::method::moco_plan;
use crate::optim;
use crate::raw::{
    RawActivations, RawAugment, RawCheckpoint, RawConvBackend, RawEvaluate, RawFidelity,
    RawFinishOn, RawHealth, RawLog, RawMonitor, RawPairing, RawPrecision, RawPretrain, RawRecipe,
    RawRun, RawSchedule, RawScheduleKind,
};

/// The validated configuration of a run.
pub(crate) fn convert(
    raw: RawPretrain,
) -> Result<(PretrainPlan, DataPlan, (RecipeConfig, Fidelity)), Complaint> {
    let RawPretrain {
        format,
        run: RawRun { seed, steps, epochs, precision, cuda_graph, conv_backend },
        data,
        augment,
        encoder,
        moco,
        optim,
        schedule,
        log,
        checkpoint,
        monitor,
        evaluate,
        health: RawHealth { stop_on_collapse },
    } = raw;
    debug_assert_eq!(format, moco_train::FORMAT, "`migrate::upgrade` comes before all else");
    let optim = optim::optim(&optim)?;
    let on_bad_sample = on_bad_sample(data.on_bad_sample, data.bad_sample_budget)?;
    let window_shards = window_shards(&data)?;
    let exif = match data.exif {
        RawExif::Ignore => Exif::Ignore,
        RawExif::Apply => Exif::Apply,
    };
    let (data, workers) = data_plan(data, on_bad_sample)?;
    let (input, recipe, fidelity) = input_plan(&augment, exif)?;
    let (encoder, head) = encoder_plan(&encoder, input.image_size, optim.batch_size)?;
    let length = length(steps, epochs)?;
    let plan = PretrainPlan {
        seed: Seed(seed),
        length,
        batch_size: optim.batch_size,
        lr: optim.lr,
        optimizer: optim.optimizer,
        schedule: optim.warmed_up(schedule_plan(schedule)?, length)?,
        moco: moco_plan(&moco)?,
        encoder,
        head,
        input,
        precision: match precision {
            RawPrecision::F32 => Precision::F32,
            RawPrecision::Tf32 => Precision::Tf32,
            RawPrecision::Bf16 => Precision::Bf16,
        },
        cuda_graph,
        conv_backend: match conv_backend {
            RawConvBackend::Auto => ConvBackend::Auto,
            RawConvBackend::Legacy => ConvBackend::Legacy,
            RawConvBackend::Graph => ConvBackend::Graph,
        },
        on_bad_sample,
        window_shards,
        workers,
        cadence: cadence(&log, &checkpoint, &monitor)?,
        evaluation: evaluation(evaluate, &monitor, recipe.image_size)?,
        health: HealthPlan { stop_on_collapse },
    };
    check_on_gpu(&plan)?;
    optim::check_recordable(&plan)?;
    Ok((plan, data, (recipe, fidelity)))
}

fn length(steps: Option<u64>, epochs: Option<u64>) -> Result<Length, Complaint> {
    match (steps, epochs) {
        (Some(steps), None) => Ok(Length::Steps(at_least_one("run.steps", steps)?)),
        (None, Some(epochs)) => Ok(Length::Epochs(at_least_one("run.epochs", epochs)?)),
        (None, None) => {
            Err(Complaint::key("run", "run.steps or run.epochs must say how long the run is"))
        }
        (Some(_), Some(_)) => {
            let message = "run.steps and run.epochs are both set; only one can say how long it is";
            Err(Complaint::key("run.steps", message).and("run.epochs"))
        }
    }
}

fn input_plan(
    raw: &RawAugment,
    exif: Exif,
) -> Result<(InputPlan, RecipeConfig, Fidelity), Complaint> {
    let RawAugment { recipe, fidelity, finish_on, image_size, crop_scale, mean, std, pairing } =
        *raw;
    let kind = match recipe {
        RawRecipe::V1 => RecipeKind::V1,
        RawRecipe::V2 => RecipeKind::V2,
        RawRecipe::Cifar => RecipeKind::Cifar,
    };
    let recipe = RecipeConfig { image_size, crop_scale, kind };
    // The rules on its numbers belong to the crate that draws by them.
    Recipe::new(recipe).map_err(|error| match error {
        AugmentError::Recipe { key, expected, got } => {
            let key = format!("augment.{key}");
            Complaint::value(&key, format!("{key} must be {expected}, got {got}"))
        }
        other => Complaint::key("augment", other.to_string()),
    })?;
    for (i, (mean, std)) in mean.iter().zip(std).enumerate() {
        not_negative(&format!("augment.mean[{i}]"), f64::from(*mean))?;
        above_zero(&format!("augment.std[{i}]"), f64::from(std))?;
    }
    let fidelity = match fidelity {
        RawFidelity::Exact => Fidelity::Exact,
        RawFidelity::Fast => Fidelity::Fast,
    };
    let pairing = match pairing {
        RawPairing::SameImage => Pairing::SameImage,
        RawPairing::Shuffled => Pairing::Shuffled,
    };
    let finish_on = match finish_on {
        RawFinishOn::Cpu => FinishOn::Cpu,
        RawFinishOn::Gpu => FinishOn::Gpu,
    };
    Ok((InputPlan { image_size, mean, std, exif, pairing, finish_on }, recipe, fidelity))
}

fn schedule_plan(raw: RawSchedule) -> Result<Schedule, Complaint> {
    const KIND: &str = "schedule.kind";
    let RawSchedule { kind, milestones, gamma, every_steps } = raw;
    let no_milestones = |name| unused("schedule.milestones", milestones.as_ref(), KIND, name);
    let no_every_steps = |name| unused("schedule.every_steps", every_steps.as_ref(), KIND, name);
    let no_keys = |name| {
        no_milestones(name)?;
        no_every_steps(name)?;
        unused("schedule.gamma", gamma.as_ref(), KIND, name)
    };
    let factor = |name| above_zero("schedule.gamma", present("schedule.gamma", gamma, KIND, name)?);
    match kind {
        RawScheduleKind::Constant => no_keys("constant").map(|()| Schedule::Constant),
        RawScheduleKind::CosinePerEpoch => {
            no_keys("cosine_per_epoch").map(|()| Schedule::CosinePerEpoch)
        }
        RawScheduleKind::CosinePerStep => {
            no_keys("cosine_per_step").map(|()| Schedule::CosinePerStep)
        }
        RawScheduleKind::Steps => {
            no_every_steps("steps")?;
            let gamma = factor("steps")?;
            let milestones = present("schedule.milestones", milestones, KIND, "steps")?;
            Ok(Schedule::Steps { milestones: ascending("schedule.milestones", milestones)?, gamma })
        }
        RawScheduleKind::Exponential => {
            no_milestones("exponential")?;
            let gamma = factor("exponential")?;
            let every_steps = present("schedule.every_steps", every_steps, KIND, "exponential")?;
            at_least_one("schedule.every_steps", every_steps)?;
            Ok(Schedule::Exponential { every_steps, gamma })
        }
    }
}

fn cadence(
    log: &RawLog,
    checkpoint: &RawCheckpoint,
    monitor: &RawMonitor,
) -> Result<Cadence, Complaint> {
    let RawLog { every_steps: log_every } = *log;
    let RawCheckpoint { every_steps: checkpoint_every, keep } = *checkpoint;
    at_least_one("checkpoint.keep", keep as u64)?;
    let knn_every = monitor.knn_every_steps;
    Ok(Cadence { log_every, checkpoint_every, keep_checkpoints: keep, knn_every })
}

fn evaluation(
    raw: RawEvaluate,
    monitor: &RawMonitor,
    image_size: u32,
) -> Result<EvaluationPlan, Complaint> {
    let RawEvaluate {
        at_end,
        resize,
        activations,
        linear_epochs,
        linear_batch_size,
        linear_lr,
        linear_milestones,
        linear_sgd_momentum,
        linear_weight_decay,
    } = raw;
    let RawMonitor { knn_every_steps: _, n_neighbors, temperature, bank } = *monitor;
    if resize < image_size {
        let message = format!(
            "evaluate.resize must be at least augment.image_size, got {resize} and {image_size}"
        );
        return Err(Complaint::value("evaluate.resize", message).and("augment.image_size"));
    }
    at_least_one("evaluate.linear_batch_size", linear_batch_size as u64)?;
    at_least_one("monitor.n_neighbors", n_neighbors as u64)?;
    if bank != 0 && bank < n_neighbors {
        let message = format!(
            "monitor.bank must hold at least monitor.n_neighbors images, got {bank} and {n_neighbors}"
        );
        return Err(Complaint::value("monitor.bank", message).and("monitor.n_neighbors"));
    }
    let temperature = above_zero("monitor.temperature", temperature)?;
    let linear = LinearPlan {
        epochs: at_least_one("evaluate.linear_epochs", linear_epochs)?,
        batch_size: linear_batch_size,
        lr: above_zero("evaluate.linear_lr", linear_lr)?,
        milestones: ascending("evaluate.linear_milestones", linear_milestones)?,
        sgd_momentum: momentum("evaluate.linear_sgd_momentum", linear_sgd_momentum)?,
        weight_decay: not_negative("evaluate.linear_weight_decay", linear_weight_decay)?,
    };
    Ok(EvaluationPlan {
        at_end,
        knn: KnnPlan { n_neighbors, temperature },
        resize,
        activations: match activations {
            RawActivations::F32 => EvaluationActivations::F32,
            RawActivations::AsTrained => EvaluationActivations::AsTrained,
        },
        monitor_bank: bank,
        linear,
    })
}
