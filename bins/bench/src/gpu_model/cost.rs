//! A lower bound on an operation's cost on a device.

/// Peaks of a device, per second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Device {
    pub(super) name: &'static str,
    /// bf16 products on tensor cores with sums in f32, without sparsity.
    pub(super) tensor_flops: f64,
    /// f32 outside them.
    pub(super) simt_flops: f64,
    /// Bytes of its memory.
    pub(super) bandwidth: f64,
}

/// H100 SXM5 with 80 GB of HBM3, data sheet of NVIDIA: <https://www.nvidia.com/en-us/data-center/h100>
/// (1979 TFLOP/s there are with sparsity).
pub(super) const H100: Device =
    Device { name: "H100 SXM", tensor_flops: 989e12, simt_flops: 67e12, bandwidth: 3.35e12 };

/// A100 SXM4 with 80 GB, data sheet of NVIDIA: <https://www.nvidia.com/en-us/data-center/a100>.
pub(super) const A100: Device =
    Device { name: "A100 SXM", tensor_flops: 312e12, simt_flops: 19.5e12, bandwidth: 2.039e12 };

/// 16 lanes of PCIe 5.0 in one direction, before its protocol's share.
pub(super) const PCIE_BANDWIDTH: f64 = 64e9;

/// Assumed shares of the peaks that good kernels reach; to be replaced by what the first run measures.
/// Convolutions lose most in the last wave of blocks and at few channels, f32 kernels like InfoNCE's to
/// their reads of shared memory (24 bytes for 8 multiply-adds), streams over memory little.
const ATTAINABLE_TENSOR: f64 = 0.6;
const ATTAINABLE_SIMT: f64 = 0.5;
const ATTAINABLE_BANDWIDTH: f64 = 0.9;

impl Device {
    /// The rates that good kernels reach.
    pub(super) fn attainable(self) -> Self {
        Self {
            tensor_flops: self.tensor_flops * ATTAINABLE_TENSOR,
            simt_flops: self.simt_flops * ATTAINABLE_SIMT,
            bandwidth: self.bandwidth * ATTAINABLE_BANDWIDTH,
            ..self
        }
    }
}

/// Parts of a step that a measurement distinguishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Images,
    QueryForward,
    KeyForward,
    Loss,
    Backward,
    Update,
}

/// The kind of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Images,
    ConvForward,
    ConvInputGradient,
    ConvWeightGradient,
    WeightOrder,
    BatchNormForward,
    BatchNormBackward,
    Add,
    Pool,
    Head,
    InfoNce,
    Update,
}

/// The units that compute products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Tensor,
    Simt,
}

/// A kernel, or a few that pass small tensors on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Op {
    pub(super) phase: Phase,
    pub(super) kind: Kind,
    pub(super) unit: Unit,
    /// Two for each multiply-add of products; element-wise work is left out, since memory bounds it.
    pub(super) flops: u64,
    /// Read and written in the device's memory, nothing found in a cache that another kernel left.
    pub(super) bytes: u64,
    pub(super) launches: u64,
}

impl Op {
    /// One that computes little for the bytes it moves.
    pub(super) fn stream(phase: Phase, kind: Kind, bytes: u64, launches: u64) -> Self {
        Self { phase, kind, unit: Unit::Simt, flops: 0, bytes, launches }
    }

    fn seconds(&self, device: Device) -> [f64; 2] {
        let peak = match self.unit {
            Unit::Tensor => device.tensor_flops,
            Unit::Simt => device.simt_flops,
        };
        [to_f64(self.flops) / peak, to_f64(self.bytes) / device.bandwidth]
    }
}

/// The sum over some operations.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Total {
    pub(super) flops: u64,
    pub(super) bytes: u64,
    pub(super) launches: u64,
    /// Each operation takes as long as the slower of its products and its memory.
    pub(super) seconds: f64,
    /// Of those where memory is the slower.
    pub(super) memory_seconds: f64,
}

impl Total {
    pub(super) fn of<'a>(ops: impl IntoIterator<Item = &'a Op>, device: Device) -> Self {
        let mut total = Self::default();
        for op in ops {
            let [products, memory] = op.seconds(device);
            total.flops += op.flops;
            total.bytes += op.bytes;
            total.launches += op.launches;
            total.seconds += products.max(memory);
            total.memory_seconds += if memory >= products { memory } else { 0.0 };
        }
        total
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(super) fn to_f64(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_takes_as_long_as_the_slower_side() {
        let device = Device { name: "", tensor_flops: 100.0, simt_flops: 10.0, bandwidth: 5.0 };
        let op = |unit, flops, bytes| Op {
            unit,
            flops,
            ..Op::stream(Phase::Loss, Kind::InfoNce, bytes, 1)
        };
        for (op, seconds, memory_seconds) in [
            (op(Unit::Tensor, 100, 10), 2.0, 2.0),
            (op(Unit::Tensor, 300, 10), 3.0, 0.0),
            (op(Unit::Simt, 300, 10), 30.0, 0.0),
        ] {
            let total = Total::of([&op, &op], device);
            let two = [2.0 * seconds, 2.0 * memory_seconds];
            assert_eq!([total.seconds, total.memory_seconds], two, "{op:?}");
            assert_eq!([total.flops, total.bytes, total.launches], [2 * op.flops, 20, 2]);
        }
    }
}
