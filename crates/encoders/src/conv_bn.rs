//! A convolution and its batch norm: the unit that ResNets are made of.

use candle_core::Tensor;
use moco_ops::{
    After, BatchNorm, BatchNormSaved, Conv2dSpec, Running, batch_norm_backward, batch_norm_eval,
    batch_norm_train, blend_running_, conv2d, conv2d_input_gradient, conv2d_weight_gradient,
};
use moco_params::ParamStore;

use crate::config::{BnConfig, RunningStats};
use crate::encoder::{EncoderError, GradientSink, InLayer, Mode, hand_out};
use crate::init::{ConvInit, Initializer};

const EPS: f64 = 1e-5;
const BN_MOMENTUM: f64 = 0.1;

/// Names and constants of a convolution and its batch norm.
#[derive(Debug, Clone)]
pub(crate) struct ConvBn {
    conv: String,
    bn: String,
    spec: Conv2dSpec,
}

/// The values saved for the backward pass.
#[derive(Debug)]
pub(crate) struct ConvBnSaved {
    x: Tensor,
    convolved: Tensor,
    y: Tensor,
    statistics: BatchNormSaved,
}

/// How a forward pass runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) bn: BnConfig,
    pub(crate) mode: Mode,
}

/// Which gradients of a unit's convolution are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The weight's only: the first layer of an encoder.
    Weight,
    /// The weight's and the input's.
    Both,
}

/// What a backward pass needs to know of the forward pass, and what it is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvBnBackward<'a> {
    pub(crate) after: After<'a>,
    pub(crate) bn: BnConfig,
    pub(crate) wanted: Wanted,
}

/// Gradients that flow out of a unit.
#[derive(Debug)]
pub(crate) struct Flow {
    /// To the input, unless it is the image.
    pub(crate) x: Option<Tensor>,
    /// To the tensor that was added.
    pub(crate) added: Option<Tensor>,
}

impl ConvBn {
    /// A unit whose parameters are drawn into `init`; `dims` = `[c_out, c_in/groups, k, k]`.
    pub(crate) fn new(
        init: &mut Initializer,
        conv: String,
        bn: String,
        dims: [usize; 4],
        weight: ConvInit,
        spec: Conv2dSpec,
    ) -> Result<Self, EncoderError> {
        init.conv(&conv, dims, weight)?;
        init.batch_norm(&bn, dims[0])?;
        Ok(Self { conv, bn, spec })
    }

    fn batch_norm<'a>(
        &self,
        params: &'a ParamStore,
        bn: BnConfig,
    ) -> Result<BatchNorm<'a>, EncoderError> {
        Ok(BatchNorm {
            gamma: params.get(&format!("{}.weight", self.bn))?,
            beta: params.get(&format!("{}.bias", self.bn))?,
            eps: EPS,
            groups: bn.groups,
        })
    }

    /// The output, and the activations in training mode.
    pub(crate) fn forward(
        &self,
        params: &mut ParamStore,
        x: &Tensor,
        after: After<'_>,
        run: Run,
    ) -> Result<(Tensor, Option<ConvBnSaved>), EncoderError> {
        let weight = params.get(&format!("{}.weight", self.conv))?;
        let convolved = conv2d(x, weight, self.spec).in_layer(&self.conv)?;
        let bn = self.batch_norm(params, run.bn)?;
        if run.mode == Mode::Eval {
            let mean = params.get(&format!("{}.running_mean", self.bn))?;
            let var = params.get(&format!("{}.running_var", self.bn))?;
            let y = batch_norm_eval(&convolved, bn, mean, var, after).in_layer(&self.bn)?;
            return Ok((y, None));
        }
        let (y, statistics) = batch_norm_train(&convolved, bn, after).in_layer(&self.bn)?;
        self.update_running(params, &statistics, run.bn.running)?;
        let saved = ConvBnSaved { x: x.clone(), convolved, y: y.clone(), statistics };
        Ok((y, Some(saved)))
    }

    /// Blends the batch's statistics into the running ones with PyTorch's momentum of 0.1.
    fn update_running(
        &self,
        params: &ParamStore,
        statistics: &BatchNormSaved,
        running: RunningStats,
    ) -> Result<(), EncoderError> {
        let groups = match running {
            RunningStats::First => 1,
            RunningStats::Mean => statistics.groups(),
        };
        let buffer = |name: &str| params.get(&format!("{}.{name}", self.bn));
        let running = Running {
            mean: buffer("running_mean")?,
            var: buffer("running_var")?,
            num_batches_tracked: buffer("num_batches_tracked")?,
        };
        blend_running_(statistics, running, groups, BN_MOMENTUM).in_layer(&self.bn)
    }

    /// Hands out the gradients of the unit's parameters and passes the rest on.
    pub(crate) fn backward(
        &self,
        params: &ParamStore,
        saved: ConvBnSaved,
        dy: &Tensor,
        how: ConvBnBackward<'_>,
        sink: &mut GradientSink<'_>,
    ) -> Result<Flow, EncoderError> {
        let ConvBnBackward { after, bn, wanted } = how;
        let bn = self.batch_norm(params, bn)?;
        let ConvBnSaved { x, convolved, y, statistics } = saved;
        let of_bn =
            batch_norm_backward(&convolved, &y, dy, bn, &statistics, after).in_layer(&self.bn)?;
        drop((convolved, y));
        hand_out(sink, &self.bn, "weight", of_bn.gamma)?;
        hand_out(sink, &self.bn, "bias", of_bn.beta)?;
        let weight = params.get(&format!("{}.weight", self.conv))?;
        let of_weight =
            conv2d_weight_gradient(&x, weight.dims(), &of_bn.x, self.spec).in_layer(&self.conv)?;
        hand_out(sink, &self.conv, "weight", of_weight)?;
        let of_input = match wanted {
            Wanted::Weight => None,
            Wanted::Both => Some(
                conv2d_input_gradient(x.dims(), weight, &of_bn.x, self.spec)
                    .in_layer(&self.conv)?,
            ),
        };
        Ok(Flow { x: of_input, added: of_bn.added })
    }
}
