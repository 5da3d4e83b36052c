//! The section `encoder`: ResNets and vision transformers, each with keys of its own.

use moco_encoders::{
    Arch, BnConfig, EncoderConfig, EncoderError, HeadKind, ResNetConfig, RunningStats, Stem,
    VitConfig, VitShape,
};
use moco_ops::Precision;
use moco_train::PretrainPlan;

use crate::check::{above_zero, at_least_one, present, unused};
use crate::complaint::Complaint;
use crate::merge::Merged;
use crate::raw::{RawEncoder, RawHead, RawRunning, RawStem};

const ARCH: &str = "encoder.arch";
/// The vision transformer whose sizes are keys.
const VIT: &str = "vit";
/// Keys of ResNets.
const OF_RESNET: [&str; 4] =
    ["encoder.stem", "encoder.width", "encoder.bn_groups", "encoder.bn_running"];
/// Keys of vision transformers; those after the first are of [`VIT`], whose name has no sizes.
const OF_VIT: [&str; 4] =
    ["encoder.patch_size", "encoder.embed_dim", "encoder.depth", "encoder.n_heads"];

/// Backbone and projection, for images with sides of `image_size` pixels.
pub(crate) fn encoder_plan(
    raw: &RawEncoder,
    image_size: u32,
    batch_size: usize,
) -> Result<(EncoderConfig, HeadKind), Complaint> {
    let RawEncoder {
        arch,
        stem,
        width,
        head,
        bn_groups,
        bn_running,
        patch_size,
        embed_dim,
        depth,
        n_heads,
    } = raw;
    let head = match head {
        RawHead::Fc => HeadKind::Fc,
        RawHead::Mlp => HeadKind::Mlp,
    };
    let sizes = [*embed_dim, *depth, *n_heads];
    if let Some((name, arch)) = Arch::NAMES.iter().find(|(name, _)| name == arch) {
        for (key, value) in OF_VIT.iter().zip([*patch_size].into_iter().chain(sizes)) {
            unused(key, value.as_ref(), ARCH, name)?;
        }
        let [of_stem, of_width, of_groups, of_running] = OF_RESNET;
        let stem = match present(of_stem, *stem, ARCH, name)? {
            RawStem::Imagenet => Stem::ImageNet,
            RawStem::Cifar => Stem::Cifar,
        };
        let width = above_zero(of_width, present(of_width, *width, ARCH, name)?)?;
        let groups = present(of_groups, *bn_groups, ARCH, name)?;
        check_groups(batch_size, groups)?;
        let running = match present(of_running, *bn_running, ARCH, name)? {
            RawRunning::First => RunningStats::First,
            RawRunning::Mean => RunningStats::Mean,
        };
        let bn = BnConfig { groups, running };
        return Ok((EncoderConfig::ResNet(ResNetConfig { arch: *arch, stem, width, bn }), head));
    }
    let named = VitShape::NAMES.iter().find(|(name, _)| name == arch);
    if named.is_none() && arch != VIT {
        let resnets = Arch::NAMES.iter().map(|(name, _)| *name);
        let vits = VitShape::NAMES.iter().map(|(name, _)| *name);
        let names: Vec<&str> = resnets.chain(vits).chain([VIT]).collect();
        return Err(Complaint::unknown_name(ARCH, arch, &names));
    }
    let [of_stem, of_width, of_groups, of_running] = OF_RESNET;
    unused(of_stem, stem.as_ref(), ARCH, arch)?;
    unused(of_width, width.as_ref(), ARCH, arch)?;
    unused(of_groups, bn_groups.as_ref(), ARCH, arch)?;
    unused(of_running, bn_running.as_ref(), ARCH, arch)?;
    let shape = vit_shape(arch, named.map(|(_, shape)| *shape), sizes)?;
    let patch_size = present(OF_VIT[0], *patch_size, ARCH, arch)?;
    let config = VitConfig { image_size: image_size as usize, patch_size, shape };
    // The rules on its numbers belong to the crate that builds it.
    config.check().map_err(|error| match error {
        EncoderError::Size { key, expected, got } => {
            let key = format!("encoder.{key}");
            Complaint::value(&key, format!("{key} must be {expected}, got {got}"))
        }
        other => Complaint::key(ARCH, other.to_string()),
    })?;
    Ok((EncoderConfig::Vit(config), head))
}

/// The sizes that a name stands for, or those of the keys.
fn vit_shape(
    arch: &str,
    named: Option<VitShape>,
    sizes: [Option<usize>; 3],
) -> Result<VitShape, Complaint> {
    let keys = &OF_VIT[1..];
    if let Some(shape) = named {
        for (key, size) in keys.iter().zip(sizes) {
            unused(key, size.as_ref(), ARCH, arch)?;
        }
        return Ok(shape);
    }
    let size = |i: usize| present(keys[i], sizes[i], ARCH, arch);
    Ok(VitShape { embed_dim: size(0)?, depth: size(1)?, n_heads: size(2)? })
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
    let is_resnet = Arch::NAMES.iter().any(|(name, _)| *name == arch);
    let unread: &[&str] = match (is_resnet, arch) {
        (true, _) => &OF_VIT,
        (false, VIT) => &OF_RESNET,
        (false, _) => &[&OF_RESNET[..], &OF_VIT[1..]].concat(),
    };
    for key in unread {
        merged.drop_if_outdated(key, ARCH);
    }
}
