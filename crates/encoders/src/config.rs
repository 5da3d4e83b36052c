//! The options of an encoder.

use crate::encoder::EncoderError;

/// A ResNet by its name in torchvision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// One basic block a stage; for small images and short runs.
    ResNet10,
    /// Basic blocks 2-2-2-2.
    ResNet18,
    /// Basic blocks 3-4-6-3.
    ResNet34,
    /// Bottlenecks 3-4-6-3.
    ResNet50,
    /// Bottlenecks 3-4-23-3.
    ResNet101,
    /// Bottlenecks 3-8-36-3.
    ResNet152,
    /// ResNet-50 with bottlenecks twice as wide inside (torchvision `wide_resnet50_2`).
    WideResNet50x2,
    /// ResNeXt-50 32×4d: 32 groups of width 4.
    ResNext50,
}

impl Arch {
    /// Each architecture with its name in configs.
    pub const NAMES: [(&'static str, Self); 8] = [
        ("resnet10", Self::ResNet10),
        ("resnet18", Self::ResNet18),
        ("resnet34", Self::ResNet34),
        ("resnet50", Self::ResNet50),
        ("resnet101", Self::ResNet101),
        ("resnet152", Self::ResNet152),
        ("wide_resnet50_2", Self::WideResNet50x2),
        ("resnext50_32x4d", Self::ResNext50),
    ];
}

/// The first layers of a ResNet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stem {
    /// 7×7 convolution with stride 2, then 3×3 max pooling with stride 2.
    ImageNet,
    /// 3×3 convolution with stride 1, no pooling (the authors' CIFAR notebook, class `ModelBase`).
    Cifar,
}

/// Which group's statistics the running mean and variance follow when a batch is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunningStats {
    /// The first group's, as in distributed training where rank 0's buffers are broadcast.
    First,
    /// The mean over the groups, as in the authors' CIFAR notebook.
    Mean,
}

/// How batch norm sees a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BnConfig {
    /// Contiguous groups with statistics of their own; the virtual devices of Shuffling BN. 1 = the
    /// whole batch.
    pub groups: usize,
    /// Which groups the running statistics follow.
    pub running: RunningStats,
}

/// A ResNet backbone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResNetConfig {
    /// Depth and kind of block.
    pub arch: Arch,
    /// First layers.
    pub stem: Stem,
    /// Multiplier of every width: 2 and 4 of the paper (R50w2×, w4×), fractions for small runs.
    pub width: f64,
    /// Batch norm.
    pub bn: BnConfig,
}

/// Sizes of a vision transformer. Hidden layers of its MLPs are four times `embed_dim` wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VitShape {
    /// Width of a token, and of the features.
    pub embed_dim: usize,
    /// Blocks of attention and MLP.
    pub depth: usize,
    /// Attention heads of a block.
    pub n_heads: usize,
}

impl VitShape {
    /// Each size with its name in configs: DeiT-Ti and DeiT-S (Touvron et al. 2021, Table 1). MoCo v3's
    /// ViT-S has 12 heads instead of 6.
    pub const NAMES: [(&'static str, Self); 2] = [
        ("vit_tiny", Self { embed_dim: 192, depth: 12, n_heads: 3 }),
        ("vit_small", Self { embed_dim: 384, depth: 12, n_heads: 6 }),
    ];
}

/// A vision transformer as MoCo v3 pretrains it (Chen et al. 2021; official `moco-v3/vits.py`): a class
/// token, whose last layer is the feature, fixed sine and cosine position embeddings, and layer norm before
/// attention and MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VitConfig {
    /// Side of the images in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels; divides `image_size`.
    pub patch_size: usize,
    /// Width, depth and heads.
    pub shape: VitShape,
}

impl VitConfig {
    /// Whether there is such a network.
    ///
    /// # Errors
    /// [`EncoderError::Size`] names the first number that is not possible.
    pub fn check(&self) -> Result<(), EncoderError> {
        let Self { image_size, patch_size, shape: VitShape { embed_dim, depth, n_heads } } = *self;
        let divides = |part: usize, whole: usize| part > 0 && whole.is_multiple_of(part);
        for (key, got, holds, expected) in [
            (
                "patch_size",
                patch_size,
                divides(patch_size, image_size) && image_size > 0,
                format!("a divisor of the image size {image_size}"),
            ),
            (
                "embed_dim",
                embed_dim,
                divides(4, embed_dim) && embed_dim > 0,
                "a multiple of 4".to_owned(),
            ),
            ("depth", depth, depth > 0, "at least 1".to_owned()),
            (
                "n_heads",
                n_heads,
                divides(n_heads, embed_dim),
                format!("a divisor of the width {embed_dim}"),
            ),
        ] {
            if !holds {
                return Err(EncoderError::Size { key, expected, got });
            }
        }
        Ok(())
    }
}

/// The projection on top of the backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKind {
    /// One linear layer (MoCo v1).
    Fc,
    /// Linear, ReLU, linear; hidden width = feature width, no batch norm (MoCo v2).
    Mlp,
}
