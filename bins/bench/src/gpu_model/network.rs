//! The layers of an encoder with their sizes, read off the encoder's own parameters.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use candle_core::DType;
use moco_encoders::{Arch, BnConfig, Encoder as _, ResNet, ResNetConfig, RunningStats, Stem};
use moco_rng::Seed;

/// A convolution and the batch norm after it, for one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Conv {
    pub(super) c_in: u64,
    pub(super) c_out: u64,
    pub(super) k: u64,
    pub(super) stride: u64,
    /// Height and width of the input.
    pub(super) side_in: u64,
    /// Parameters of the weight.
    pub(super) weights: u64,
}

/// A residual block.
#[derive(Debug)]
pub(super) struct Block {
    /// Each followed by ReLU.
    pub(super) first: Vec<Conv>,
    /// Followed by the addition of the shortcut and ReLU.
    pub(super) last: Conv,
    pub(super) downsample: Option<Conv>,
}

/// A ResNet with the ImageNet stem.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) stem: Conv,
    pub(super) blocks: Vec<Block>,
    pub(super) feature_dim: u64,
}

/// Shapes `[c_out, c_in/groups, k, k]` of a block's convolutions.
#[derive(Debug, Default)]
struct Shapes {
    main: Vec<[u64; 4]>,
    downsample: Option<[u64; 4]>,
}

impl Conv {
    fn new([c_out, c_group, k, _]: [u64; 4], c_in: u64, stride: u64, side_in: u64) -> Self {
        Self { c_in, c_out, k, stride, side_in, weights: c_out * c_group * k * k }
    }

    pub(super) fn side_out(&self) -> u64 {
        self.side_in.div_ceil(self.stride)
    }

    /// Numbers of the input of an image.
    pub(super) fn inputs(&self) -> u64 {
        self.c_in * self.side_in * self.side_in
    }

    /// Numbers of the input that the products need: a 1×1 convolution with stride 2 skips three of four
    /// pixels.
    pub(super) fn used_inputs(&self) -> u64 {
        let side = if self.k < self.stride { self.side_out() } else { self.side_in };
        self.c_in * side * side
    }

    /// Numbers of the output of an image.
    pub(super) fn outputs(&self) -> u64 {
        self.c_out * self.pixels()
    }

    /// Pixels of the output.
    pub(super) fn pixels(&self) -> u64 {
        self.side_out() * self.side_out()
    }

    /// Multiply-adds of an image, those on the padding included.
    pub(super) fn multiply_adds(&self) -> u64 {
        self.weights * self.pixels()
    }
}

impl Block {
    /// In the order of the forward pass.
    pub(super) fn convs(&self) -> impl Iterator<Item = &Conv> {
        self.first.iter().chain(&self.downsample).chain([&self.last])
    }

    /// Numbers of the input of an image.
    pub(super) fn inputs(&self) -> u64 {
        self.first.first().map_or(0, Conv::inputs)
    }

    fn new(shapes: &Shapes, stride: u64, [c_in, side]: [u64; 2]) -> anyhow::Result<Self> {
        let (mut c, mut at, mut left) = (c_in, side, stride);
        let mut convs = Vec::new();
        for shape in &shapes.main {
            // The first 3×3 convolution strides (torchvision's "ResNet v1.5").
            let stride = if shape[2] == 3 { std::mem::replace(&mut left, 1) } else { 1 };
            let conv = Conv::new(*shape, c, stride, at);
            (c, at) = (conv.c_out, conv.side_out());
            convs.push(conv);
        }
        let last = convs.pop().context("a block without convolutions")?;
        let downsample = shapes.downsample.map(|shape| Conv::new(shape, c_in, stride, side));
        Ok(Self { first: convs, last, downsample })
    }
}

impl Network {
    /// Of images with height and width `side`.
    pub(super) fn new(arch: Arch, side: u64) -> anyhow::Result<Self> {
        let encoder = encoder(arch)?;
        let mut stem = None;
        let mut blocks: BTreeMap<[u64; 2], Shapes> = BTreeMap::new();
        for (name, weight) in encoder.params().parameters() {
            let Ok(shape) = <[usize; 4]>::try_from(weight.dims()) else { continue };
            let shape = shape.map(|size| size as u64);
            let parts: Vec<&str> = name.split('.').collect();
            match parts.as_slice() {
                ["conv1", _] => stem = Some(shape),
                [layer, block, rest @ ..] if layer.starts_with("layer") => {
                    let stage = layer.trim_start_matches("layer").parse()?;
                    let shapes = blocks.entry([stage, block.parse()?]).or_default();
                    // The names' order is that of the forward pass.
                    match rest {
                        ["downsample", ..] => shapes.downsample = Some(shape),
                        _ => shapes.main.push(shape),
                    }
                }
                _ => bail!("no place is known for {name}"),
            }
        }
        let stem = Conv::new(stem.context("the encoder has no stem")?, 3, 2, side);
        let mut at = [stem.c_out, pooled(stem.side_out())];
        let mut all = Vec::new();
        for ([stage, block], shapes) in blocks {
            let stride = if stage > 1 && block == 0 { 2 } else { 1 };
            let block = Block::new(&shapes, stride, at)?;
            at = [block.last.c_out, block.last.side_out()];
            all.push(block);
        }
        Ok(Self { stem, blocks: all, feature_dim: at[0] })
    }

    /// In the order of the forward pass.
    pub(super) fn convs(&self) -> impl Iterator<Item = &Conv> {
        std::iter::once(&self.stem).chain(self.blocks.iter().flat_map(Block::convs))
    }

    /// Numbers of an image after the max pooling.
    pub(super) fn pooled(&self) -> u64 {
        self.stem.c_out * pooled(self.stem.side_out()).pow(2)
    }

    /// Numbers of an image before the global average pooling.
    pub(super) fn last(&self) -> u64 {
        self.blocks.last().map_or(0, |block| block.last.outputs())
    }

    /// Weights of the convolutions, γ and β of the batch norms.
    pub(super) fn parameters(&self) -> u64 {
        self.convs().map(|conv| conv.weights + 2 * conv.c_out).sum()
    }
}

fn encoder(arch: Arch) -> anyhow::Result<ResNet> {
    let bn = BnConfig { groups: 1, running: RunningStats::First };
    let config = ResNetConfig { arch, stem: Stem::ImageNet, width: 1.0, bn };
    Ok(ResNet::new(config, Seed(0), DType::F32)?)
}

/// 3×3, stride 2, padding 1.
fn pooled(side: u64) -> u64 {
    side.div_ceil(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parameters and multiply-adds as torchvision's documentation of its weights has them (`num_params`,
    /// `GFLOPS`), for models with a classifier of 1000 classes after the features.
    #[test]
    fn sizes_are_the_published_ones() {
        for (arch, parameters, giga_multiply_adds) in [
            (Arch::ResNet18, 11_689_512, 1.814),
            (Arch::ResNet34, 21_797_672, 3.664),
            (Arch::ResNet50, 25_557_032, 4.089),
            (Arch::ResNet101, 44_549_160, 7.801),
            (Arch::ResNext50, 25_028_904, 4.230),
        ] {
            let network = Network::new(arch, 224).unwrap();
            let classifier = network.feature_dim * 1000;
            assert_eq!(network.parameters() + classifier + 1000, parameters, "{arch:?}");
            let all = network.convs().map(Conv::multiply_adds).sum::<u64>() + classifier;
            let giga = super::super::cost::to_f64(all) / 1e9;
            assert!((giga - giga_multiply_adds).abs() < 1e-3, "{arch:?}: {giga}");
        }
    }

    #[test]
    fn parameters_are_the_encoder_s() {
        for arch in [Arch::ResNet18, Arch::ResNet50] {
            let encoder = encoder(arch).unwrap();
            let own: usize = encoder.params().parameters().map(|(_, x)| x.elem_count()).sum();
            let network = Network::new(arch, 224).unwrap();
            assert_eq!(network.parameters(), own as u64);
            assert_eq!(network.feature_dim, encoder.feature_dim() as u64);
        }
    }

    #[test]
    fn resnet50_ends_at_7_and_skips_pixels_in_its_shortcuts_alone() {
        let network = Network::new(Arch::ResNet50, 224).unwrap();
        assert_eq!(network.last(), 2048 * 7 * 7);
        let skipping = network.convs().filter(|conv| conv.used_inputs() < conv.inputs());
        assert!(skipping.map(|conv| [conv.c_in, conv.k]).eq([[256, 1], [512, 1], [1024, 1]]));
    }
}
