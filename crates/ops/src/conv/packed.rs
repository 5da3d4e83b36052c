//! Weights in the order the inner kernel reads them.

use rayon::prelude::*;

use super::reorder::{Axis, reorder};
use super::shared::Shared;
use crate::dense::Unwritten;
use crate::simd::{Float, isa};
use crate::tile::TileShape;

/// Weights of a column that are moved at a time: whole cache lines, and few enough for the cache.
const ELEMENTS: usize = 144;

/// A matrix `[taps · channels, columns]` cut into blocks of columns, each `[taps · channels, block width]`,
/// the last one filled up with zero columns.
#[derive(Debug)]
pub(super) struct Packed<T> {
    pub(super) numbers: Vec<T>,
    pub(super) blocks: Vec<Block>,
    pub(super) shape: TileShape,
}

/// A block of columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// Where it starts in the packed numbers.
    pub(super) start: usize,
    pub(super) first_column: usize,
    pub(super) columns: usize,
    pub(super) vectors: usize,
}

/// Where the weight of a tap, a channel and a column lies:
/// `start + channel·channel_stride + column·column_stride + tap`.
#[derive(Debug, Clone, Copy)]
pub(super) struct WeightView {
    pub(super) start: usize,
    pub(super) taps: usize,
    /// Summed over.
    pub(super) channels: usize,
    pub(super) channel_stride: usize,
    pub(super) columns: usize,
    pub(super) column_stride: usize,
}

impl<T: Float> Packed<T> {
    pub(super) fn new(weight: &[T], view: WeightView) -> Self {
        let WeightView { taps, channels, columns, .. } = view;
        let shape = TileShape::of::<T>(isa());
        let mut blocks = Vec::new();
        let (mut start, mut first_column) = (0, 0);
        for vectors in shape.column_blocks(columns) {
            let width = vectors * shape.lanes;
            let within = width.min(columns - first_column);
            blocks.push(Block { start, first_column, columns: within, vectors });
            start += taps * channels * width;
            first_column += width;
        }
        let mut numbers = Unwritten::new(start);
        let shared = Shared(numbers.elements().as_mut_ptr().cast::<T>());
        let together = (ELEMENTS / taps).max(1);
        let parts = channels.div_ceil(together);
        (0..blocks.len() * parts).into_par_iter().for_each(|task| {
            let block = blocks[task / parts];
            let first = task % parts * together;
            let width = block.vectors * shape.lanes;
            let row = |tap: usize, channel: usize| block.start + (tap * channels + channel) * width;
            let in_part = together.min(channels - first);
            let channel = Axis { len: in_part, from: view.channel_stride, to: width };
            let column = Axis { len: block.columns, from: view.column_stride, to: 1 };
            let tap = Axis { len: taps, from: 1, to: channels * width };
            let from =
                view.start + first * view.channel_stride + block.first_column * view.column_stride;
            let axes = if view.column_stride < view.channel_stride {
                [channel, tap, column]
            } else {
                [column, tap, channel]
            };
            // SAFETY: the view lies inside the weights, the rows inside the block; each task has
            // channels of its own.
            unsafe {
                reorder(weight.as_ptr().add(from), shared.at(row(0, first)), axes);
                for (tap, channel) in (0..taps).flat_map(|t| (0..in_part).map(move |c| (t, c))) {
                    let row = shared.at(row(tap, first + channel));
                    for column in block.columns..width {
                        row.add(column).write(T::zero());
                    }
                }
            }
        });
        // SAFETY: blocks, channels, columns and taps cover all elements.
        let numbers = unsafe { numbers.written() };
        Self { numbers, blocks, shape }
    }
}
