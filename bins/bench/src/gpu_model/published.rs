//! Published throughputs of training ResNet-50 with labels at 224², and what they say about a step.

use super::cost::{A100, Device, H100, Total};
use super::step::Step;

/// A throughput with its source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Published {
    pub(super) what: &'static str,
    pub(super) device: Device,
    /// Of one GPU.
    pub(super) images_per_second: f64,
}

/// NVIDIA's table for one GPU of a DGX A100 (80 GB), container pytorch-21.03; batch 256 and NHWC by the
/// `configs.yml` beside it:
/// <https://github.com/NVIDIA/DeepLearningExamples/blob/master/PyTorch/Classification/ConvNets/resnet50v1.5/README.md>.
pub(super) const PYTORCH_A100: Published = Published {
    what: "PyTorch 21.03, AMP, NVIDIA DeepLearningExamples",
    device: A100,
    images_per_second: 2470.0,
};

/// MLPerf Training 3.0, 8 GPUs with 400 images each at 56,080 images/s, batch norm fused with what follows
/// it and, by its names, with convolutions:
/// <https://github.com/mlcommons/training_results_v3.0/blob/main/Dell/results/XE9680x8H100-SXM-80GB/resnet/result_0.txt>,
/// `tracked_stats` of epoch 29.
pub(super) const MLPERF_H100: Published = Published {
    what: "MXNet, fp16, MLPerf Training 3.0 (3.0-2053), one of 8 GPUs",
    device: H100,
    images_per_second: 56_080.0 / 8.0,
};

/// A throughput compared with the model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged {
    /// Measured time in floors of the same work on the same device.
    pub(super) floors: f64,
    /// Seconds of a MoCo step on an H100 that needs as many floors.
    pub(super) step_seconds: f64,
}

impl Published {
    /// `step` is one of the network that was measured.
    pub(super) fn judge(&self, step: &Step, batch_size: f64) -> Judged {
        let supervised = Total::of(&step.supervised_ops(), self.device).seconds;
        let floors = batch_size / self.images_per_second / supervised;
        Judged { floors, step_seconds: floors * Total::of(&step.ops(), H100).seconds }
    }
}

#[cfg(test)]
mod tests {
    use moco_encoders::Arch;

    use super::super::network::Network;
    use super::*;

    #[test]
    fn a_throughput_at_half_the_floor_takes_two_floors() {
        let network = Network::new(Arch::ResNet18, 224).unwrap();
        let step = Step { network, batch_size: 256, queue_size: 65_536, dim: 128 };
        let seconds = Total::of(&step.supervised_ops(), A100).seconds;
        let published =
            Published { what: "", device: A100, images_per_second: 256.0 / (2.0 * seconds) };
        let Judged { floors, step_seconds } = published.judge(&step, 256.0);
        assert!((floors - 2.0).abs() < 1e-12, "{floors}");
        let expected = 2.0 * Total::of(&step.ops(), H100).seconds;
        assert!((step_seconds / expected - 1.0).abs() < 1e-12, "{step_seconds}");
    }
}
