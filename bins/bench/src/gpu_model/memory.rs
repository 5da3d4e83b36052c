//! Device memory of a step: what `crates/encoders` keeps for the backward pass, and what is alive with it.

use super::network::{Block, Conv};
use super::step::Step;

/// What cuDNN's algorithms may ask for at most; `WORKSPACE_LIMIT` of `crates/ops/src/gpu/plans.rs`.
const WORKSPACE_LIMIT: u64 = 1 << 30;

/// Bytes on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    /// Parameters of both encoders, SGD's buffers, gradients; f32.
    pub(super) parameters: u64,
    pub(super) queue: u64,
    /// Both views of this batch and of the next, bf16.
    pub(super) images: u64,
    /// What the query's forward pass keeps: of each convolution its output, and the same after batch norm
    /// and ReLU, which is the next one's input.
    pub(super) saved: u64,
    /// The most that the key's forward pass has at a time, before that.
    pub(super) key_forward: u64,
    /// The most that the backward pass has at a time beside `saved`, less what it has given back of it by then.
    pub(super) backward: u64,
    pub(super) workspace: u64,
}

impl Memory {
    pub(super) fn of(step: &Step) -> Self {
        let n = step.batch_size;
        let network = &step.network;
        let kept = |conv: &Conv| 4 * n * conv.outputs();
        // bf16 numbers, and a byte for the place of each maximum.
        let before_blocks = kept(&network.stem) + 3 * n * network.pooled();
        let of_block = |block: &Block| block.convs().map(kept).sum::<u64>();
        let saved = before_blocks + network.blocks.iter().map(of_block).sum::<u64>();
        // Shuffled images, and a block with its input or the stem and the pooling.
        let with_input =
            network.blocks.iter().map(|block| of_block(block) + 2 * n * block.inputs());
        let key_forward = 2 * step.pixels() + with_input.fold(before_blocks, u64::max);
        let (mut freed, mut backward) = (0, 0);
        for block in network.blocks.iter().rev() {
            // dy, what it is where ReLU let through, and the gradient before batch norm.
            let alive = 3 * 2 * n * block.last.outputs();
            backward = alive.saturating_sub(freed).max(backward);
            freed += of_block(block);
        }
        Self {
            parameters: 4 * 4 * step.parameters(),
            queue: 4 * step.queue_size * step.dim,
            images: 2 * 2 * 2 * step.pixels(),
            saved,
            key_forward,
            backward,
            workspace: WORKSPACE_LIMIT,
        }
    }

    /// Peak memory without the workspace, whose size only a device reports.
    pub(super) fn peak(&self) -> u64 {
        let of_views = self.key_forward.max(self.saved + self.backward);
        self.parameters + self.queue + self.images + of_views
    }
}

#[cfg(test)]
mod tests {
    use moco_encoders::Arch;

    use super::super::network::Network;
    use super::*;

    /// ResNet-50's convolutions have 11,113,984 outputs an image, each kept twice in bf16; the pooling
    /// has 64·56² with a byte more.
    #[test]
    fn resnet50_keeps_its_activations_twice() {
        let network = Network::new(Arch::ResNet50, 224).unwrap();
        let step = Step { network, batch_size: 256, queue_size: 65_536, dim: 128 };
        let memory = Memory::of(&step);
        assert_eq!(memory.saved, 256 * (11_113_984 * 2 * 2 + 64 * 56 * 56 * 3));
        assert_eq!(memory.parameters, 16 * 27_966_656);
        assert_eq!(memory.images, 8 * 256 * 3 * 224 * 224);
        // The first block of the first stage: 64, 64, 256 and 256 channels of 56².
        let block = 256 * 56 * 56 * 4 * (64 + 64 + 256 + 256);
        let input = 2 * 256 * 64 * 56 * 56;
        assert_eq!(memory.key_forward, block + input + 2 * 256 * 3 * 224 * 224);
        // dy, g and dx of the last block, before anything was given back.
        assert_eq!(memory.backward, 3 * 2 * 256 * 2048 * 49);
        let rest = memory.parameters + memory.queue + memory.images;
        assert_eq!(memory.peak(), rest + memory.saved + memory.backward);
    }
}
