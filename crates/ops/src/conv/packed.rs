//! Weights in the order the inner kernel reads them.

use rayon::prelude::*;

use super::Shared;
use crate::dense::Unwritten;
use crate::simd::{Float, isa};
use crate::tile::TileShape;

/// Channels whose weights are moved at a time, so that what is written stays in the first-level cache.
const CHANNELS: usize = 16;

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
        let parts = channels.div_ceil(CHANNELS);
        (0..blocks.len() * parts).into_par_iter().for_each(|task| {
            let block = blocks[task / parts];
            let first = task % parts * CHANNELS;
            let width = block.vectors * shape.lanes;
            for column in 0..width {
                for channel in first..(first + CHANNELS).min(channels) {
                    let from = view.start
                        + channel * view.channel_stride
                        + (block.first_column + column) * view.column_stride;
                    for tap in 0..taps {
                        let is_weight = column < block.columns;
                        let value = if is_weight { weight[from + tap] } else { T::zero() };
                        let to = block.start + (tap * channels + channel) * width + column;
                        // SAFETY: `to` is inside the block; each task has channels of its own.
                        unsafe { shared.at(to).write(value) };
                    }
                }
            }
        });
        // SAFETY: blocks, channels, columns and taps cover all elements.
        let numbers = unsafe { numbers.written() };
        Self { numbers, blocks, shape }
    }
}
