//! Residual blocks: two 3×3 convolutions, or 1×1, 3×3, 1×1.

use candle_core::Tensor;
use moco_ops::{After, Conv2dSpec, add};
use moco_params::ParamStore;

use crate::config::BnConfig;
use crate::conv_bn::{ConvBn, ConvBnBackward, ConvBnSaved, Flow, Run, Wanted};
use crate::encoder::{EncoderError, GradientSink, InLayer};
use crate::init::{ConvInit, Initializer};

/// A residual block (He et al. 2016; torchvision `BasicBlock`, `Bottleneck`).
#[derive(Debug, Clone)]
pub(crate) struct Block {
    name: String,
    /// All convolutions but the last, each followed by ReLU.
    first: Vec<ConvBn>,
    /// Followed by the addition of the shortcut and ReLU.
    last: ConvBn,
    downsample: Option<ConvBn>,
}

/// Activations of a block.
#[derive(Debug)]
pub(crate) struct BlockSaved {
    first: Vec<ConvBnSaved>,
    last: ConvBnSaved,
    downsample: Option<ConvBnSaved>,
    /// The shortcut that was added before the last ReLU.
    shortcut: Tensor,
}

/// Widths of a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockShape {
    pub(crate) c_in: usize,
    /// Width of the 3×3 convolutions.
    pub(crate) inner: usize,
    pub(crate) c_out: usize,
    pub(crate) stride: usize,
    /// Groups of a bottleneck's 3×3 convolution; `None` for a basic block.
    pub(crate) bottleneck_groups: Option<usize>,
}

impl Block {
    pub(crate) fn new(
        init: &mut Initializer,
        name: String,
        shape: BlockShape,
    ) -> Result<Self, EncoderError> {
        let BlockShape { c_in, inner, c_out, stride, bottleneck_groups } = shape;
        let weight = ConvInit::FanOutNormal;
        let mut unit = |i: usize, dims, spec| {
            let (conv, bn) = (format!("{name}.conv{i}"), format!("{name}.bn{i}"));
            ConvBn::new(init, conv, bn, dims, weight, spec)
        };
        let three = Conv2dSpec::new(stride, 1);
        let one = Conv2dSpec::new(1, 0);
        let (first, last) = match bottleneck_groups {
            None => (
                vec![unit(1, [inner, c_in, 3, 3], three)?],
                unit(2, [c_out, inner, 3, 3], Conv2dSpec::new(1, 1))?,
            ),
            Some(groups) => {
                let grouped = Conv2dSpec { groups, ..three };
                let squeeze = unit(1, [inner, c_in, 1, 1], one)?;
                let spatial = unit(2, [inner, inner / groups, 3, 3], grouped)?;
                (vec![squeeze, spatial], unit(3, [c_out, inner, 1, 1], one)?)
            }
        };
        let downsample = if stride == 1 && c_in == c_out {
            None
        } else {
            let (conv, bn) = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
            let spec = Conv2dSpec::new(stride, 0);
            Some(ConvBn::new(init, conv, bn, [c_out, c_in, 1, 1], weight, spec)?)
        };
        Ok(Self { name, first, last, downsample })
    }

    pub(crate) fn forward(
        &self,
        params: &mut ParamStore,
        x: &Tensor,
        run: Run,
    ) -> Result<(Tensor, Option<BlockSaved>), EncoderError> {
        let mut first = Vec::new();
        let mut y = x.clone();
        for conv in &self.first {
            let saved;
            (y, saved) = conv.forward(params, &y, After::Relu, run)?;
            first.extend(saved);
        }
        let (shortcut, downsample) = match &self.downsample {
            None => (x.clone(), None),
            Some(conv) => conv.forward(params, x, After::Nothing, run)?,
        };
        let (y, last) = self.last.forward(params, &y, After::AddRelu(&shortcut), run)?;
        Ok((y, last.map(|last| BlockSaved { first, last, downsample, shortcut })))
    }

    /// The gradient of the block's input.
    pub(crate) fn backward(
        &self,
        params: &ParamStore,
        saved: BlockSaved,
        dy: &Tensor,
        bn: BnConfig,
        sink: &mut GradientSink<'_>,
    ) -> Result<Tensor, EncoderError> {
        let BlockSaved { first, last, downsample, shortcut } = saved;
        let after = After::AddRelu(&shortcut);
        let how = ConvBnBackward { after, bn, wanted: Wanted::Both };
        let mut flow = self.last.backward(params, last, dy, how, sink)?;
        let mut along_shortcut = flow.added.take().ok_or(EncoderError::ForeignActivations)?;
        let through = |flow: Flow| flow.x.ok_or(EncoderError::ForeignActivations);
        let mut along_main = through(flow)?;
        for (conv, saved) in self.first.iter().zip(first).rev() {
            let how = ConvBnBackward { after: After::Relu, bn, wanted: Wanted::Both };
            along_main = through(conv.backward(params, saved, &along_main, how, sink)?)?;
        }
        if let (Some(conv), Some(saved)) = (&self.downsample, downsample) {
            let how = ConvBnBackward { after: After::Nothing, bn, wanted: Wanted::Both };
            along_shortcut = through(conv.backward(params, saved, &along_shortcut, how, sink)?)?;
        }
        add(&along_main, &along_shortcut).in_layer(&self.name)
    }
}
