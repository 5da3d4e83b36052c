//! ResNets with torchvision's parameter names (He et al. 2016; torchvision `models/resnet.py`).

use candle_core::{DType, Tensor};
use moco_ops::{
    After, Conv2dSpec, MaxPooled, global_average_pool, global_average_pool_backward, max_pool,
    max_pool_backward,
};
use moco_params::ParamStore;
use moco_rng::Seed;

use crate::block::{Block, BlockSaved, BlockShape};
use crate::config::{Arch, ResNetConfig, Stem};
use crate::conv_bn::{ConvBn, ConvBnBackward, ConvBnSaved, Run, Wanted};
use crate::encoder::{Encoder, EncoderError, GradientSink, InLayer, Mode, Saved};
use crate::init::{ConvInit, Initializer, count};

/// A ResNet without its last linear layer: images `[N, 3, H, W]` to the pooled features
/// `[N, feature_dim]` (2048 for ResNet-50).
#[derive(Debug)]
pub struct ResNet {
    config: ResNetConfig,
    params: ParamStore,
    stem: ConvBn,
    blocks: Vec<Block>,
    feature_dim: usize,
}

struct Activations {
    stem: ConvBnSaved,
    pooled: Option<(MaxPooled, Vec<usize>)>,
    blocks: Vec<BlockSaved>,
    /// Shape and type of the last activations.
    last: (Vec<usize>, DType),
}

/// Blocks of each stage, and whether they are bottlenecks.
fn layout(arch: Arch) -> ([usize; 4], bool) {
    match arch {
        Arch::ResNet10 => ([1, 1, 1, 1], false),
        Arch::ResNet18 => ([2, 2, 2, 2], false),
        Arch::ResNet34 => ([3, 4, 6, 3], false),
        Arch::ResNet50 | Arch::WideResNet50x2 | Arch::ResNext50 => ([3, 4, 6, 3], true),
        Arch::ResNet101 => ([3, 4, 23, 3], true),
        Arch::ResNet152 => ([3, 8, 36, 3], true),
    }
}

/// Groups and base width of the 3×3 convolution in a bottleneck.
fn groups_and_base_width(arch: Arch) -> (usize, usize) {
    match arch {
        Arch::WideResNet50x2 => (1, 128),
        Arch::ResNext50 => (32, 4),
        _ => (1, 64),
    }
}

impl ResNet {
    /// A ResNet with torchvision's initial values, in f32 or f64; `conv1` of [`Stem::Cifar`] starts as
    /// PyTorch's `nn.Conv2d`, by which the authors' notebook replaces torchvision's.
    ///
    /// # Errors
    /// If the width multiplier leaves a layer without channels.
    pub fn new(config: ResNetConfig, seed: Seed, dtype: DType) -> Result<Self, EncoderError> {
        let (stages, is_bottleneck) = layout(config.arch);
        let (groups, base_width) = groups_and_base_width(config.arch);
        let scaled = |width: usize| scaled(width, config.width);
        let mut init = Initializer::new(seed, dtype, 0);
        let mut c = scaled(64)?;
        let (k, weight, spec) = match config.stem {
            Stem::ImageNet => (7, ConvInit::FanOutNormal, Conv2dSpec::new(2, 3)),
            // The authors' notebook puts a fresh `nn.Conv2d` where torchvision's layer was.
            Stem::Cifar => (3, ConvInit::FanInUniform, Conv2dSpec::new(1, 1)),
        };
        let (conv, bn) = ("conv1".to_owned(), "bn1".to_owned());
        let stem = ConvBn::new(&mut init, conv, bn, [c, 3, k, k], weight, spec)?;
        let mut blocks = Vec::new();
        for (stage, n_blocks) in stages.into_iter().enumerate() {
            let planes = 64 << stage;
            let inner = if is_bottleneck { planes * base_width / 64 * groups } else { planes };
            let c_out = scaled(if is_bottleneck { 4 * planes } else { planes })?;
            let inner = scaled(inner)?.next_multiple_of(groups);
            for block in 0..n_blocks {
                let shape = BlockShape {
                    c_in: c,
                    inner,
                    c_out,
                    stride: if stage > 0 && block == 0 { 2 } else { 1 },
                    bottleneck_groups: is_bottleneck.then_some(groups),
                };
                let name = format!("layer{}.{block}", stage + 1);
                blocks.push(Block::new(&mut init, name, shape)?);
                c = c_out;
            }
        }
        Ok(Self { config, params: init.store, stem, blocks, feature_dim: c })
    }

    fn run(
        &mut self,
        images: &Tensor,
        mode: Mode,
        mut keep: Option<&mut Vec<BlockSaved>>,
    ) -> Result<Features, EncoderError> {
        let run = Run { bn: self.config.bn, mode };
        let keeps = keep.is_some();
        let (mut y, stem) = self.stem.forward(&mut self.params, images, After::Relu, run)?;
        // What nobody keeps is given back at once.
        let stem = stem.filter(|_| keeps);
        let mut pooled = None;
        if self.config.stem == Stem::ImageNet {
            let before = y.dims().to_vec();
            let max = max_pool(&y).in_layer("maxpool")?;
            y = max.y.clone();
            pooled = keeps.then_some((max, before));
        }
        for block in &self.blocks {
            let saved;
            (y, saved) = block.forward(&mut self.params, &y, run)?;
            if let (Some(keep), Some(saved)) = (keep.as_deref_mut(), saved) {
                keep.push(saved);
            }
        }
        let last = (y.dims().to_vec(), y.dtype());
        let features = global_average_pool(&y).in_layer("avgpool")?;
        Ok(Features { features, stem, pooled, last })
    }
}

struct Features {
    features: Tensor,
    stem: Option<ConvBnSaved>,
    pooled: Option<(MaxPooled, Vec<usize>)>,
    /// Shape and type of the last activations.
    last: (Vec<usize>, DType),
}

fn scaled(width: usize, by: f64) -> Result<usize, EncoderError> {
    let scaled = (count(width) * by).round();
    if scaled < 1.0 || !scaled.is_finite() {
        return Err(EncoderError::NoChannels { what: "width", got: by });
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at least 1")]
    Ok(scaled as usize)
}

impl Encoder for ResNet {
    fn params(&self) -> &ParamStore {
        &self.params
    }

    fn params_mut(&mut self) -> &mut ParamStore {
        &mut self.params
    }

    fn feature_dim(&self) -> usize {
        self.feature_dim
    }

    fn forward(&mut self, images: &Tensor) -> Result<(Tensor, Saved), EncoderError> {
        let mut blocks = Vec::with_capacity(self.blocks.len());
        let Features { features, stem, pooled, last } =
            self.run(images, Mode::Train, Some(&mut blocks))?;
        let stem = stem.ok_or(EncoderError::ForeignActivations)?;
        Ok((features, Saved::new(Activations { stem, pooled, blocks, last })))
    }

    fn features(&mut self, images: &Tensor, mode: Mode) -> Result<Tensor, EncoderError> {
        Ok(self.run(images, mode, None)?.features)
    }

    /// conv1 after its ReLU (before any pooling), then res2 to res5, which are torchvision's `layer1` to `layer4`;
    /// global average pooling of the last one gives the features. For images `[N, 3, H, W]`, with the widths of
    /// [`ResNetConfig::width`] 1:
    ///
    /// | | conv1 | res2 | res3 | res4 | res5 |
    /// |---|---|---|---|---|---|
    /// | channels, basic blocks | 64 | 64 | 128 | 256 | 512 |
    /// | channels, bottlenecks | 64 | 256 | 512 | 1024 | 2048 |
    /// | height, ImageNet stem | H/2 | H/4 | H/8 | H/16 | H/32 |
    /// | height, CIFAR stem | H | H | H/2 | H/4 | H/8 |
    ///
    /// Sizes that 2 does not divide are rounded up.
    fn stage_features(&mut self, images: &Tensor) -> Result<Vec<Tensor>, EncoderError> {
        let run = Run { bn: self.config.bn, mode: Mode::Eval };
        let (mut y, _) = self.stem.forward(&mut self.params, images, After::Relu, run)?;
        let mut stages = vec![y.clone()];
        if self.config.stem == Stem::ImageNet {
            y = max_pool(&y).in_layer("maxpool")?.y;
        }
        let (blocks_of_stages, _) = layout(self.config.arch);
        let mut blocks = self.blocks.iter();
        for n_blocks in blocks_of_stages {
            for block in blocks.by_ref().take(n_blocks) {
                (y, _) = block.forward(&mut self.params, &y, run)?;
            }
            stages.push(y.clone());
        }
        Ok(stages)
    }

    fn backward(
        &self,
        saved: Saved,
        features: &Tensor,
        sink: &mut GradientSink<'_>,
    ) -> Result<(), EncoderError> {
        let Activations { stem, pooled, mut blocks, last } = saved.take()?;
        let (dims, dtype) = last;
        let mut dy = global_average_pool_backward(&dims, features, dtype).in_layer("avgpool")?;
        for block in self.blocks.iter().rev() {
            // Taken off the end one by one, so that memory is given back on the way.
            let saved = blocks.pop().ok_or(EncoderError::ForeignActivations)?;
            dy = block.backward(&self.params, saved, &dy, self.config.bn, sink)?;
        }
        if let Some((max, dims)) = pooled {
            dy = max_pool_backward(&max, &dims, &dy).in_layer("maxpool")?;
        }
        let (after, bn) = (After::Relu, self.config.bn);
        let how = ConvBnBackward { after, bn, wanted: Wanted::Weight };
        self.stem.backward(&self.params, stem, &dy, how, sink)?;
        Ok(())
    }

    fn fork(&self) -> Result<Box<dyn Encoder>, EncoderError> {
        Ok(Box::new(Self {
            config: self.config,
            params: self.params.deep_copy()?,
            stem: self.stem.clone(),
            blocks: self.blocks.clone(),
            feature_dim: self.feature_dim,
        }))
    }
}
