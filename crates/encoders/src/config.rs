//! What can be chosen about an encoder.

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
    /// What the running statistics follow.
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

/// The projection on top of the backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKind {
    /// One linear layer (MoCo v1).
    Fc,
    /// Linear, ReLU, linear; hidden width = feature width, no batch norm (MoCo v2).
    Mlp,
}
