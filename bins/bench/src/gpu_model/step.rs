//! The operations of a step as `crates/moco/src/algorithm_1.rs` calls them and `crates/ops` launches
//! them, with bf16 activations and f32 parameters.

use super::cost::{Kind, Op, Phase, Unit};
use super::network::{Block, Conv, Network};

/// Bytes of a number of an activation.
const BF16: u64 = 2;
/// Bytes of a number of anything else.
const F32: u64 = 4;

/// The sizes of a step.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) network: Network,
    pub(super) batch_size: u64,
    pub(super) queue_size: u64,
    /// Width of queries and keys.
    pub(super) dim: u64,
}

/// The operation fused after a batch norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Nothing,
    Relu,
    AddRelu,
}

impl Step {
    /// In the order in which they are queued.
    pub(super) fn ops(&self) -> Vec<Op> {
        let mut ops = self.images();
        // θ_k ← m·θ_k + (1 − m)·θ_q: two read, one written.
        ops.push(Op::stream(Phase::Update, Kind::Update, 3 * F32 * self.parameters(), 1));
        ops.extend(self.shuffle());
        ops.extend(self.forward(Phase::KeyForward));
        ops.extend(self.forward(Phase::QueryForward));
        ops.extend(self.loss());
        ops.extend(self.backward());
        ops.push(self.sgd());
        ops
    }

    /// The same network trained with labels: what only the queries cost.
    pub(super) fn supervised_ops(&self) -> Vec<Op> {
        let mut ops = self.forward(Phase::QueryForward);
        ops.extend(self.backward());
        ops.push(self.sgd());
        ops
    }

    /// Bytes that a step moves besides where ReLU and the addition before it are kernels of their own
    /// and ReLU is done in place, as in torchvision's ResNets without a compiler.
    pub(super) fn unfused_bytes(&self) -> u64 {
        let of = |convs: &mut dyn Iterator<Item = &Conv>| {
            BF16 * self.batch_size * convs.map(Conv::outputs).sum::<u64>()
        };
        let blocks = &self.network.blocks;
        let stem = std::iter::once(&self.network.stem);
        let relu = of(&mut stem.chain(blocks.iter().flat_map(|block| &block.first)));
        let add_relu = of(&mut blocks.iter().map(|block| &block.last));
        // Two forward passes: ReLU reads and writes; an addition of two instead of a third operand of
        // batch norm moves two more. A backward pass: ReLU's gradient reads two and writes one, of which
        // the kernels here do two where they add.
        2 * (2 * relu + 4 * add_relu) + 3 * relu + add_relu
    }

    /// Reads parameter, gradient and buffer, and writes parameter and buffer.
    fn sgd(&self) -> Op {
        Op::stream(Phase::Update, Kind::Update, 5 * F32 * self.parameters(), 1)
    }

    /// Of an encoder and its head.
    pub(super) fn parameters(&self) -> u64 {
        let of_head: u64 = self.head().iter().map(|[c_in, c_out]| c_in * c_out + c_out).sum();
        self.network.parameters() + of_head
    }

    /// Bytes of a view's pixels.
    pub(super) fn pixels(&self) -> u64 {
        self.batch_size * self.network.stem.inputs()
    }

    /// The layers of the MLP head, `[c_in, c_out]`.
    fn head(&self) -> [[u64; 2]; 2] {
        let features = self.network.feature_dim;
        [[features, features], [features, self.dim]]
    }

    /// The copy of both views' pixels that arrives, and their normalization.
    fn images(&self) -> Vec<Op> {
        let view = [
            Op::stream(Phase::Images, Kind::Images, self.pixels(), 0),
            Op::stream(Phase::Images, Kind::Images, self.pixels() * (1 + BF16), 1),
        ];
        [view, view].concat()
    }

    /// Shuffling BN: the images into another order, the keys back.
    fn shuffle(&self) -> [Op; 2] {
        let keys = 2 * F32 * self.batch_size * self.dim;
        [2 * BF16 * self.pixels(), keys]
            .map(|bytes| Op::stream(Phase::KeyForward, Kind::Images, bytes, 1))
    }

    fn forward(&self, phase: Phase) -> Vec<Op> {
        let Self { network, batch_size: n, .. } = self;
        let mut ops = self.conv_forward(phase, &network.stem, After::Relu);
        // Max pooling leaves a byte for each output: the place of its maximum.
        let bytes = n * (BF16 * network.stem.outputs() + (BF16 + 1) * network.pooled());
        ops.push(Op::stream(phase, Kind::Pool, bytes, 1));
        for block in &network.blocks {
            for conv in &block.first {
                ops.extend(self.conv_forward(phase, conv, After::Relu));
            }
            if let Some(conv) = &block.downsample {
                ops.extend(self.conv_forward(phase, conv, After::Nothing));
            }
            ops.extend(self.conv_forward(phase, &block.last, After::AddRelu));
        }
        ops.push(self.average(phase));
        for [c_in, c_out] in self.head() {
            ops.push(matmul(phase, [*n, c_in, c_out]));
            // The bias.
            ops.push(Op::stream(phase, Kind::Head, 2 * F32 * n * c_out, 1));
        }
        // ReLU between the layers, L2 normalization after them.
        ops.push(Op::stream(phase, Kind::Head, 2 * F32 * n * network.feature_dim, 1));
        ops.push(Op::stream(phase, Kind::Head, 2 * F32 * n * self.dim, 1));
        ops
    }

    fn backward(&self) -> Vec<Op> {
        const PHASE: Phase = Phase::Backward;
        let Self { network, batch_size: n, .. } = self;
        let mut ops = vec![Op::stream(PHASE, Kind::Head, 3 * F32 * n * self.dim, 1)];
        for [c_in, c_out] in self.head().into_iter().rev() {
            ops.push(matmul(PHASE, [*n, c_out, c_in]));
            ops.push(matmul(PHASE, [c_out, *n, c_in]));
            // The bias.
            ops.push(Op::stream(PHASE, Kind::Head, F32 * n * c_out, 1));
        }
        ops.push(Op::stream(PHASE, Kind::Head, 3 * F32 * n * network.feature_dim, 1));
        ops.push(self.average(PHASE));
        for block in network.blocks.iter().rev() {
            ops.extend(self.block_backward(block));
        }
        let bytes = n * (BF16 * network.stem.outputs() + (BF16 + 1) * network.pooled());
        ops.push(Op::stream(PHASE, Kind::Pool, bytes, 1));
        // The stem's input is the image, which needs no gradient.
        ops.extend(self.batch_norm_backward(&network.stem, After::Relu));
        ops.extend(self.weight_gradient(&network.stem));
        ops
    }

    fn block_backward(&self, block: &Block) -> Vec<Op> {
        let mut ops = Vec::new();
        let units = std::iter::once((&block.last, After::AddRelu))
            .chain(block.first.iter().rev().map(|conv| (conv, After::Relu)))
            .chain(block.downsample.iter().map(|conv| (conv, After::Nothing)));
        for (conv, after) in units {
            ops.extend(self.batch_norm_backward(conv, after));
            ops.extend(self.weight_gradient(conv));
            ops.extend(self.input_gradient(conv));
        }
        // The gradients along both ways.
        let bytes = 3 * BF16 * self.batch_size * block.inputs();
        ops.push(Op::stream(Phase::Backward, Kind::Add, bytes, 1));
        ops
    }

    fn conv_forward(&self, phase: Phase, conv: &Conv, after: After) -> Vec<Op> {
        let n = self.batch_size;
        let y = BF16 * n * conv.outputs();
        let partial = self.partial(conv);
        let normalized = if after == After::AddRelu { 3 * y } else { 2 * y };
        vec![
            weight_order(phase, conv),
            self.conv(phase, Kind::ConvForward, conv, conv.used_inputs()),
            // Moments of chunks, their sums for each channel, normalization, running statistics.
            Op::stream(phase, Kind::BatchNormForward, y + 2 * partial + normalized, 4),
        ]
    }

    fn batch_norm_backward(&self, conv: &Conv, after: After) -> [Op; 1] {
        let y = BF16 * self.batch_size * conv.outputs();
        // x and dy are read; after an addition y too, and the gradient of both summands is written.
        let sums = if after == After::AddRelu { 4 * y } else { 2 * y };
        let bytes = sums + 2 * self.partial(conv) + 3 * y;
        [Op::stream(Phase::Backward, Kind::BatchNormBackward, bytes, 3)]
    }

    fn weight_gradient(&self, conv: &Conv) -> [Op; 2] {
        let kind = Kind::ConvWeightGradient;
        let product = self.conv(Phase::Backward, kind, conv, conv.used_inputs());
        [product, weight_order(Phase::Backward, conv)]
    }

    fn input_gradient(&self, conv: &Conv) -> [Op; 2] {
        let kind = Kind::ConvInputGradient;
        // Pixels that the products skip get zeros.
        let product = self.conv(Phase::Backward, kind, conv, conv.inputs());
        [weight_order(Phase::Backward, conv), product]
    }

    /// One of the three products: each of its tensors is moved once.
    fn conv(&self, phase: Phase, kind: Kind, conv: &Conv, inputs: u64) -> Op {
        let n = self.batch_size;
        let bytes = BF16 * (n * (inputs + conv.outputs()) + conv.weights);
        let flops = 2 * n * conv.multiply_adds();
        Op { phase, kind, unit: Unit::Tensor, flops, bytes, launches: 1 }
    }

    /// Bytes of batch norm's sums over chunks, as `Rows::new` of `crates/ops/src/batch_norm/gpu.rs` cuts
    /// the activations: 1024 blocks of 256 threads with 8 channels each, at least 8 rows a thread.
    fn partial(&self, conv: &Conv) -> u64 {
        let rows = self.batch_size * conv.pixels();
        let packs = conv.c_out.div_ceil(8);
        let tiles = packs.div_ceil(32);
        let lanes = 256 / packs.div_ceil(tiles);
        let chunk = rows.div_ceil((1024 / tiles).max(1)).max(8 * lanes);
        2 * F32 * rows.div_ceil(chunk) * conv.c_out
    }

    fn average(&self, phase: Phase) -> Op {
        let of_image = BF16 * self.network.last() + F32 * self.network.feature_dim;
        Op::stream(phase, Kind::Pool, self.batch_size * of_image, 1)
    }

    /// InfoNCE as `crates/ops/src/info_nce/gpu.rs` cuts the queue into parts, and the queue's new keys.
    fn loss(&self) -> Vec<Op> {
        let Self { batch_size: n, queue_size, dim, .. } = *self;
        let tiles = n.div_ceil(32) * dim.div_ceil(128);
        let blocks = queue_size.div_ceil(32);
        let per_part = blocks.div_ceil((512 / tiles).max(1)).clamp(8, 64);
        let parts = blocks.div_ceil(per_part);
        // Blocks that share a part of the queue run side by side, so that it is read once.
        let bytes = F32 * (dim * queue_size + 2 * parts * n * (dim + 4) + 5 * n * dim);
        // q·queue and p·queueᵀ, and in each part the cosines of 32 queries with 32 positives.
        let flops = 4 * n * queue_size * dim + 2 * parts * n * 32 * dim;
        let (phase, kind) = (Phase::Loss, Kind::InfoNce);
        vec![
            Op { phase, kind, unit: Unit::Simt, flops, bytes, launches: 2 },
            Op::stream(phase, kind, 2 * F32 * n * dim, 1),
        ]
    }
}

/// f32 parameters to bf16 in the library's order, or gradients back.
fn weight_order(phase: Phase, conv: &Conv) -> Op {
    Op::stream(phase, Kind::WeightOrder, (F32 + BF16) * conv.weights, 1)
}

/// `[m, k] · [k, n]` in f32 without TF32.
fn matmul(phase: Phase, [m, k, n]: [u64; 3]) -> Op {
    let bytes = F32 * (m * k + k * n + m * n);
    let flops = 2 * m * k * n;
    Op { phase, kind: Kind::Head, unit: Unit::Simt, flops, bytes, launches: 1 }
}

#[cfg(test)]
mod tests {
    use moco_encoders::Arch;

    use super::super::cost::{H100, Total};
    use super::*;

    fn step(arch: Arch) -> Step {
        let network = Network::new(arch, 224).unwrap();
        Step { network, batch_size: 256, queue_size: 65_536, dim: 128 }
    }

    fn total(ops: &[Op], of: impl Fn(&Op) -> bool) -> Total {
        Total::of(ops.iter().filter(|op| of(op)), H100)
    }

    /// From published numbers only: 4.089 G multiply-adds and 2,048,000 of them in the classifier, 118 M
    /// in the stem, 53 convolutions.
    #[test]
    fn products_of_resnet50_are_the_published_ones() {
        let ops = step(Arch::ResNet50).ops();
        let of = |kind| total(&ops, |op| op.kind == kind);
        let (one_pass, of_stem) = (512.0 * (4.089e9 - 2.048e6), 512.0 * 118.0e6);
        for (kind, flops, launches) in [
            (Kind::ConvForward, 2.0 * one_pass, 2 * 53),
            (Kind::ConvWeightGradient, one_pass, 53),
            (Kind::ConvInputGradient, one_pass - of_stem, 52),
        ] {
            let got = of(kind);
            let relative = super::super::cost::to_f64(got.flops) / flops - 1.0;
            assert!(relative.abs() < 1e-3, "{kind:?}: {relative}");
            assert_eq!(got.launches, launches, "{kind:?}");
        }
    }

    /// Activations of ResNet-50's convolutions are 11.11 M numbers an image, the known figure; those
    /// before an addition are 16 outputs of blocks, which are known from the paper's table.
    #[test]
    fn batch_norm_moves_what_its_kernels_do() {
        let step = step(Arch::ResNet50);
        let all: u64 = step.network.convs().map(Conv::outputs).sum();
        assert_eq!(all, 11_113_984);
        let stages = [(3, 256 * 56 * 56), (4, 512 * 28 * 28), (6, 1024 * 14 * 14), (3, 2048 * 49)];
        let added: u64 = stages.iter().map(|(blocks, outputs)| blocks * outputs).sum();
        let partial: u64 = step.network.convs().map(|conv| step.partial(conv)).sum();
        let ops = step.ops();
        let of = |kind, phase| total(&ops, |op| op.kind == kind && op.phase == phase).bytes;
        let forward = 2 * 256 * (3 * all + added) + 2 * partial;
        assert_eq!(of(Kind::BatchNormForward, Phase::QueryForward), forward);
        let backward = 2 * 256 * (5 * all + 2 * added) + 2 * partial;
        assert_eq!(of(Kind::BatchNormBackward, Phase::Backward), backward);
        assert!(50 * partial < 2 * 256 * all);
        // Forward 8 instead of 4 passes over what is added and 5 instead of 3 over what is not, twice;
        // backward 8 instead of 7 and 8 instead of 5; neither where a shortcut is convolved.
        let downsample: u64 = stages.iter().map(|(_, outputs)| outputs).sum();
        let relu = all - added - downsample;
        let fused = 2 * (3 * relu + 4 * added) + 5 * relu + 7 * added;
        let unfused = 2 * (5 * relu + 8 * added) + 8 * relu + 8 * added;
        assert_eq!(step.unfused_bytes(), 2 * 256 * (unfused - fused));
    }

    #[test]
    fn info_nce_walks_once_over_the_queue() {
        let ops = step(Arch::ResNet18).ops();
        let loss = total(&ops, |op| op.phase == Phase::Loss);
        // 64 parts, as the test of the launches in `crates/ops` has them for these sizes.
        assert_eq!(loss.flops, 4 * 256 * 65_536 * 128 + 2 * 64 * 256 * 32 * 128);
        assert_eq!(loss.launches, 3);
        assert!((33_554_432..55_000_000).contains(&loss.bytes), "{}", loss.bytes);
    }

    #[test]
    fn updates_move_each_parameter_eight_times() {
        for (arch, parameters) in [
            (Arch::ResNet18, 11_176_512 + 512 * 512 + 512 + 512 * 128 + 128),
            (Arch::ResNet50, 23_508_032 + 2048 * 2048 + 2048 + 2048 * 128 + 128),
        ] {
            let step = step(arch);
            assert_eq!(step.parameters(), parameters);
            let update = total(&step.ops(), |op| op.phase == Phase::Update);
            assert_eq!([update.bytes, update.launches], [8 * 4 * parameters, 2]);
        }
    }
}
