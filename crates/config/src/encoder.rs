//! The section `encoder`: ResNets and vision transformers, each with keys of its own.

use moco_encoders::{
    Arch, BnConfig, EncoderConfig, EncoderError, HeadKind, ResNetConfig, RunningStats, Stem,
    VitConfig, VitShape,
};
use moco_ops::Precision;
use moco_train::PretrainPlan;
use serde::Deserialize;

use crate::check::{above_zero, at_least_one, present, unused};
use crate::complaint::Complaint;
use crate::merge::Merged;

/// `[encoder]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section")]
pub(crate) struct RawEncoder {
    /// A ResNet by its name in torchvision; `vit_tiny`, `vit_small`, or `vit` with sizes of its own.
    pub(crate) arch: String,
    /// First layers; for ResNets only.
    pub(crate) stem: Option<RawStem>,
    /// Multiplier of every width; for ResNets only.
    pub(crate) width: Option<f64>,
    /// Projection: `fc` is v1's, `mlp` v2's.
    pub(crate) head: RawHead,
    /// Parts of the batch with batch-norm statistics of their own; for ResNets only.
    pub(crate) bn_groups: Option<usize>,
    /// Which group's statistics the running mean and variance follow; for ResNets only.
    pub(crate) bn_running: Option<RawRunning>,
    /// Side of a patch in pixels; for vision transformers only.
    pub(crate) patch_size: Option<usize>,
    /// Width of a token; for `vit` only.
    pub(crate) embed_dim: Option<usize>,
    /// Blocks of attention and MLP; for `vit` only.
    pub(crate) depth: Option<usize>,
    /// Attention heads of a block; for `vit` only.
    pub(crate) n_heads: Option<usize>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawStem {
    Imagenet,
    Cifar,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawHead {
    Fc,
    Mlp,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawRunning {
    First,
    Mean,
}

const ARCH: &str = "encoder.arch";
/// The vision transformer whose sizes are keys.
const VIT: &str = "vit";
/// Keys of ResNets.
const OF_RESNET: [&str; 4] =
    ["encoder.stem", "encoder.width", "encoder.bn_groups", "encoder.bn_running"];
/// Keys of vision transformers; those after the first are of [`VIT`], whose name has no sizes.
const OF_VIT: [&str; 4] =
    ["encoder.patch_size", "encoder.embed_dim", "encoder.depth", "encoder.n_heads"];

/// Each network by its name, with those of the keys above that it has.
fn networks() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    let resnets = Arch::NAMES.iter().map(|(name, _)| (*name, &OF_RESNET[..]));
    let vits = VitShape::NAMES.iter().map(|(name, _)| (*name, &OF_VIT[..1]));
    resnets.chain(vits).chain([(VIT, &OF_VIT[..])])
}

/// Backbone and projection, for images with sides of `image_size` pixels.
pub(crate) fn encoder_plan(
    raw: &RawEncoder,
    image_size: u32,
    batch_size: usize,
) -> Result<(EncoderConfig, HeadKind), Complaint> {
    let head = match raw.head {
        RawHead::Fc => HeadKind::Fc,
        RawHead::Mlp => HeadKind::Mlp,
    };
    let Some((name, keys)) = networks().find(|(name, _)| *name == raw.arch) else {
        let names: Vec<&str> = networks().map(|(name, _)| name).collect();
        return Err(Complaint::unknown_name(ARCH, &raw.arch, &names));
    };
    let RawEncoder {
        stem,
        width,
        bn_groups,
        bn_running,
        patch_size,
        embed_dim,
        depth,
        n_heads,
        ..
    } = raw;
    let of_resnet = [stem.is_some(), width.is_some(), bn_groups.is_some(), bn_running.is_some()];
    let of_vit = [patch_size, embed_dim, depth, n_heads].map(Option::is_some);
    let all = OF_RESNET.into_iter().chain(OF_VIT);
    for (key, is_set) in all.zip(of_resnet.into_iter().chain(of_vit)) {
        if !keys.contains(&key) {
            unused(key, is_set.then_some(&()), ARCH, name)?;
        }
    }
    let resnet = Arch::NAMES.iter().find_map(|(of, arch)| (*of == name).then_some(*arch));
    let encoder = match resnet {
        Some(arch) => resnet_plan(raw, arch, batch_size)?,
        None => vit_plan(raw, image_size)?,
    };
    Ok((encoder, head))
}

fn resnet_plan(
    raw: &RawEncoder,
    arch: Arch,
    batch_size: usize,
) -> Result<EncoderConfig, Complaint> {
    let name = &raw.arch;
    let [of_stem, of_width, of_groups, of_running] = OF_RESNET;
    let stem = match present(of_stem, raw.stem, ARCH, name)? {
        RawStem::Imagenet => Stem::ImageNet,
        RawStem::Cifar => Stem::Cifar,
    };
    let width = above_zero(of_width, present(of_width, raw.width, ARCH, name)?)?;
    let groups = present(of_groups, raw.bn_groups, ARCH, name)?;
    check_groups(batch_size, groups)?;
    let running = match present(of_running, raw.bn_running, ARCH, name)? {
        RawRunning::First => RunningStats::First,
        RawRunning::Mean => RunningStats::Mean,
    };
    let bn = BnConfig { groups, running };
    Ok(EncoderConfig::ResNet(ResNetConfig { arch, stem, width, bn }))
}

fn vit_plan(raw: &RawEncoder, image_size: u32) -> Result<EncoderConfig, Complaint> {
    let size = |key, size| present(key, size, ARCH, &raw.arch);
    let [of_patch, of_width, of_depth, of_heads] = OF_VIT;
    let shape = match VitShape::NAMES.iter().find(|(name, _)| *name == raw.arch) {
        Some((_, shape)) => *shape,
        None => VitShape {
            embed_dim: size(of_width, raw.embed_dim)?,
            depth: size(of_depth, raw.depth)?,
            n_heads: size(of_heads, raw.n_heads)?,
        },
    };
    let patch_size = size(of_patch, raw.patch_size)?;
    let config = VitConfig { image_size: image_size as usize, patch_size, shape };
    // The rules on its numbers belong to the crate that builds it.
    config.check().map_err(|error| match error {
        EncoderError::Size { key, expected, got } => {
            let key = format!("encoder.{key}");
            Complaint::value(&key, format!("{key} must be {expected}, got {got}"))
        }
        other => Complaint::key(ARCH, other.to_string()),
    })?;
    Ok(EncoderConfig::Vit(config))
}

fn check_groups(batch_size: usize, bn_groups: usize) -> Result<(), Complaint> {
    at_least_one("encoder.bn_groups", bn_groups as u64)?;
    if batch_size.is_multiple_of(bn_groups) {
        return Ok(());
    }
    let message = format!(
        "optim.batch_size must be divisible by encoder.bn_groups, got {batch_size} and {bn_groups}"
    );
    Err(Complaint::value("optim.batch_size", message).and("encoder.bn_groups"))
}

/// Settings that candle's own operations do not support on a GPU.
pub(crate) fn check_on_gpu(plan: &PretrainPlan) -> Result<(), Complaint> {
    let EncoderConfig::Vit(_) = plan.encoder else { return Ok(()) };
    if plan.precision == Precision::Bf16 {
        let message = "run.precision must be \"f32\" or \"tf32\" with a vision transformer";
        return Err(Complaint::value("run.precision", message).and(ARCH));
    }
    if plan.cuda_graph {
        let message = "run.cuda_graph must be false with a vision transformer, \
                       whose operations cannot be captured";
        return Err(Complaint::value("run.cuda_graph", message).and(ARCH));
    }
    Ok(())
}

/// Drops the keys of a lower layer that another network on a higher one does not have.
pub(crate) fn drop_outdated(merged: &mut Merged) {
    let arch = merged.get(ARCH).and_then(|arch| arch.as_str()).unwrap_or_default();
    let Some((_, keys)) = networks().find(|(name, _)| *name == arch) else { return };
    for key in OF_RESNET.iter().chain(&OF_VIT).filter(|key| !keys.contains(key)) {
        merged.drop_if_outdated(key, ARCH);
    }
}
