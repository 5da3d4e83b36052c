//! The model as Markdown.

use std::fmt::Write as _;

use super::cost::{H100, Kind, Op, PCIE_BANDWIDTH, Phase, Total, to_f64};
use super::memory::Memory;
use super::network::Conv;
use super::published::{MLPERF_H100, PYTORCH_A100};
use super::step::Step;

const PHASES: [(Phase, &str); 6] = [
    (Phase::Images, "images: arrive, normalize"),
    (Phase::KeyForward, "key forward, shuffle"),
    (Phase::QueryForward, "query forward"),
    (Phase::Loss, "InfoNCE, queue"),
    (Phase::Backward, "backward"),
    (Phase::Update, "SGD, momentum update"),
];

const KINDS: [(Kind, &str); 12] = [
    (Kind::ConvForward, "convolutions forward, both encoders"),
    (Kind::ConvInputGradient, "convolutions dX"),
    (Kind::ConvWeightGradient, "convolutions dW"),
    (Kind::WeightOrder, "weights to bf16 and order, gradients back"),
    (Kind::BatchNormForward, "batch norm + ReLU + addition forward, both"),
    (Kind::BatchNormBackward, "batch norm backward"),
    (Kind::Add, "gradients of blocks' inputs added"),
    (Kind::Pool, "pooling, both directions"),
    (Kind::Head, "heads in f32, L2 normalization"),
    (Kind::InfoNce, "InfoNCE, queue"),
    (Kind::Update, "SGD, momentum update"),
    (Kind::Images, "images: arrive, normalize, shuffle"),
];

/// Of the host, for a launch with its checks and allocations; assumed.
const SECONDS_A_LAUNCH: f64 = 5e-6;
/// Last-level cache of an H100.
const L2_BYTES: u64 = 50_000_000;

pub(super) fn of(arch: &str, step: &Step) -> String {
    let ops = step.ops();
    let mut text = format!(
        "{arch}, {side}², batch {batch}, MLP head, K = {k}, C = {dim}; {device}: {tensor:.0} TFLOP/s bf16, \
         {simt:.0} TFLOP/s f32, {bandwidth:.2} TB/s.\n\n",
        side = step.network.stem.side_in,
        batch = step.batch_size,
        k = step.queue_size,
        dim = step.dim,
        device = H100.name,
        tensor = H100.tensor_flops / 1e12,
        simt = H100.simt_flops / 1e12,
        bandwidth = H100.bandwidth / 1e12,
    );
    text += &table("phase", &ops, &PHASES, |op| op.phase);
    text += "\n";
    text += &table("operation", &ops, &KINDS, |op| op.kind);
    text += "\n";
    text += &beside(step, &ops);
    text += "\n";
    text += &memory(&Memory::of(step));
    if arch == "resnet50" && step.network.stem.side_in == 224 {
        text += "\n";
        text += &published(step);
    }
    text
}

fn table<G: PartialEq + Copy>(
    head: &str,
    ops: &[Op],
    groups: &[(G, &str)],
    group_of: impl Fn(&Op) -> G,
) -> String {
    let mut text = format!(
        "| {head} | GFLOP | GB | launches | floor ms | attainable ms | bound by |\n|---|---|---|---|---|---|---|\n"
    );
    for (group, name) in groups {
        let of_group: Vec<Op> = ops.iter().filter(|op| group_of(op) == *group).copied().collect();
        text += &row(name, &of_group);
    }
    text += &row("**step**", ops);
    text
}

fn row(name: &str, ops: &[Op]) -> String {
    let floor = Total::of(ops, H100);
    let attainable = Total::of(ops, H100.attainable());
    format!(
        "| {name} | {:.0} | {:.2} | {} | {:.2} | {:.2} | {} |\n",
        to_f64(floor.flops) / 1e9,
        to_f64(floor.bytes) / 1e9,
        floor.launches,
        floor.seconds * 1e3,
        attainable.seconds * 1e3,
        bound(&attainable),
    )
}

/// The slower side and its share of the time.
fn bound(total: &Total) -> String {
    if total.seconds == 0.0 {
        return "launches".to_owned();
    }
    let share = total.memory_seconds / total.seconds;
    let (side, share) = if share >= 0.5 { ("memory", share) } else { ("products", 1.0 - share) };
    format!("{side} {:.0} %", 100.0 * share)
}

/// The work other than kernels, what a cache may save, and what fusion does.
fn beside(step: &Step, ops: &[Op]) -> String {
    let all = Total::of(ops, H100);
    let supervised = Total::of(&step.supervised_ops(), H100);
    let pixels = to_f64(2 * step.pixels());
    let outputs = || step.network.convs().map(Conv::outputs);
    let small = outputs().filter(|outputs| 2 * step.batch_size * outputs <= L2_BYTES).sum();
    let unfused = to_f64(step.unfused_bytes());
    format!(
        "- Upload: {:.1} MB of pixels, {:.2} ms over PCIe 5.0 ×16, while the step before computes.\n\
         - Host: {} launches of {:.0} µs are {:.1} ms.\n\
         - Cache: {:.0} % of the convolutions' outputs are in tensors below {} MB, which the next kernel may \
         find in it; the floor counts on none.\n\
         - Fusion: with ReLU and additions as kernels of their own, as in PyTorch's eager mode, {:.1} GB or \
         {:.1} ms more.\n\
         - Floor of the same network trained with labels: {:.2} ms; of a MoCo step {:.2} times that.\n",
        pixels / 1e6,
        pixels / PCIE_BANDWIDTH * 1e3,
        all.launches,
        SECONDS_A_LAUNCH * 1e6,
        to_f64(all.launches) * SECONDS_A_LAUNCH * 1e3,
        100.0 * to_f64(small) / to_f64(outputs().sum()),
        L2_BYTES / 1_000_000,
        unfused / 1e9,
        unfused / H100.bandwidth * 1e3,
        supervised.seconds * 1e3,
        all.seconds / supervised.seconds,
    )
}

fn memory(memory: &Memory) -> String {
    let mut text = "| memory | GiB |\n|---|---|\n".to_owned();
    let Memory { parameters, queue, images, saved, key_forward, backward, workspace } = *memory;
    for (name, bytes) in [
        ("parameters of both encoders, momentum buffers, gradients, f32", parameters),
        ("queue, f32", queue),
        ("views of this batch and the next, bf16", images),
        ("activations kept for the backward pass", saved),
        ("the key's forward pass, before that", key_forward),
        ("the backward pass beside what it has not yet given back", backward),
        ("**peak of these**", memory.peak()),
        ("workspace of cuDNN, at most", workspace),
    ] {
        // Writing to a string cannot fail.
        let _ok = writeln!(text, "| {name} | {:.2} |", to_f64(bytes) / f64::from(1 << 30));
    }
    text
}

fn published(step: &Step) -> String {
    let batch_size = to_f64(step.batch_size);
    let mut text = "| published | device | images/s | floors | MoCo step on an H100 at as many floors, ms | images/s |\n\
                    |---|---|---|---|---|---|\n"
        .to_owned();
    for published in [PYTORCH_A100, MLPERF_H100] {
        let judged = published.judge(step, batch_size);
        let _ok = writeln!(
            text,
            "| {} | {} | {:.0} | {:.2} | {:.1} | {:.0} |",
            published.what,
            published.device.name,
            published.images_per_second,
            judged.floors,
            judged.step_seconds * 1e3,
            batch_size / judged.step_seconds,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use moco_encoders::Arch;

    use super::super::network::Network;
    use super::*;

    #[test]
    fn each_operation_is_in_a_row_of_both_tables() {
        let network = Network::new(Arch::ResNet18, 64).unwrap();
        let step = Step { network, batch_size: 8, queue_size: 64, dim: 128 };
        for op in step.ops() {
            assert_eq!(PHASES.iter().filter(|(phase, _)| *phase == op.phase).count(), 1);
            assert_eq!(KINDS.iter().filter(|(kind, _)| *kind == op.kind).count(), 1, "{op:?}");
        }
    }

    #[test]
    fn what_bounds_is_the_side_with_more_of_the_time() {
        for (seconds, memory_seconds, expected) in
            [(4.0, 3.0, "memory 75 %"), (4.0, 1.0, "products 75 %"), (0.0, 0.0, "launches")]
        {
            assert_eq!(bound(&Total { seconds, memory_seconds, ..Total::default() }), expected);
        }
    }
}
