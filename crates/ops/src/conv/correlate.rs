//! Pixels as sums over taps and channels: the forward pass and the gradient of the input.

use std::ops::Range;

use rayon::prelude::*;

use super::gather::{Plane, Rows, Run, chunks, pixels, runs};
use super::geometry::Region;
use super::packed::{Block, Packed};
use super::shared::Shared;
use crate::simd::Float;
use crate::tile::{Span, Tile, Write, compute, ranges};

/// Pixels of a task: enough to use each weight often, few enough that their rows stay in the
/// second-level cache (1 MiB on current servers, half of that on desktops).
const TASK_PIXELS: usize = 192;
/// Part of the reduction that is copied at a time.
const DEPTH: usize = 512;
/// Tasks that there should be at least, so that cores share the work.
const MIN_TASKS: usize = 16;

/// `out[pixel] = Σ_taps from[what the tap meets] · weights[tap]` for the pixels of regions.
#[derive(Debug)]
pub(super) struct Correlation<'a, T> {
    pub(super) n: usize,
    pub(super) from: &'a [T],
    pub(super) met: Plane,
    pub(super) own: Plane,
    /// Channels summed over.
    pub(super) channels: usize,
    pub(super) weights: &'a Packed<T>,
}

/// Some pixels of a region and some blocks of columns.
struct Task<'r> {
    region: &'r Region,
    pixels: Range<usize>,
    blocks: Range<usize>,
}

/// Where sums go.
#[derive(Debug, Clone, Copy)]
struct Output<'a, T> {
    numbers: Shared<T>,
    /// Where each pixel starts.
    starts: &'a [usize],
    write: Write,
}

impl<T: Float> Correlation<'_, T> {
    /// Writes all pixels of the regions, which together are the pixels of `out`.
    pub(super) fn run(&self, regions: &[Region], out: Shared<T>) {
        let pixels_of = |region: &Region| self.n * region.pixels();
        let n_chunks: usize = regions.iter().map(|r| pixels_of(r).div_ceil(TASK_PIXELS)).sum();
        let n_blocks = self.weights.blocks.len();
        let blocks_per_task = n_blocks.div_ceil(MIN_TASKS.div_ceil(n_chunks.max(1))).max(1);
        let mut tasks = Vec::new();
        for region in regions {
            for pixels in ranges(pixels_of(region), TASK_PIXELS) {
                for first in (0..n_blocks).step_by(blocks_per_task) {
                    let blocks = first..(first + blocks_per_task).min(n_blocks);
                    tasks.push(Task { region, pixels: pixels.clone(), blocks });
                }
            }
        }
        tasks.par_iter().for_each(|task| self.run_task(task, out));
    }

    fn run_task(&self, task: &Task<'_>, out: Shared<T>) {
        let pixels = pixels(task.region, task.pixels.clone(), self.own, self.met);
        let starts: Vec<usize> = pixels.iter().map(|pixel| pixel.own).collect();
        let runs = runs(&task.region.taps, self.channels, self.met);
        for (i, chunk) in chunks(&runs, DEPTH).iter().enumerate() {
            let rows = Rows::copy(self.from, &pixels, chunk);
            // The first part of the reduction overwrites, the others add.
            let write = if i == 0 { Write::Set } else { Write::Add };
            let output = Output { numbers: out, starts: &starts, write };
            for block in &self.weights.blocks[task.blocks.clone()] {
                let spans = self.spans(chunk, block);
                self.multiply(&rows, &spans, block, output);
            }
        }
    }

    /// Where the runs lie in the copied rows and in a block of weights.
    fn spans(&self, chunk: &[Run], block: &Block) -> Vec<Span> {
        let width = block.vectors * self.weights.shape.lanes;
        let mut spans: Vec<Span> = Vec::with_capacity(chunk.len());
        let mut a = 0;
        for run in chunk {
            let b = block.start + run.weight_row * width;
            match spans.last_mut() {
                Some(last) if last.b + last.len * width == b => last.len += run.len,
                _ => spans.push(Span { a, b, len: run.len }),
            }
            a += run.len;
        }
        spans
    }

    fn multiply(&self, rows: &Rows<T>, spans: &[Span], block: &Block, output: Output<'_, T>) {
        let shape = self.weights.shape;
        for part in ranges(output.starts.len(), shape.max_rows(block.vectors)) {
            let tile = Tile {
                a: rows.pointer().wrapping_add(part.start * rows.stride),
                a_row: rows.stride,
                a_red: 1,
                b: self.weights.numbers.as_ptr(),
                b_red: block.vectors * shape.lanes,
                spans,
                out: output.numbers.at(block.first_column),
                out_rows: &output.starts[part.clone()],
                columns: block.columns,
                write: output.write,
            };
            // SAFETY: each pixel has a copied row with the elements of all spans; blocks are whole
            // vectors wide; pixels of different tasks and columns of different blocks are different
            // elements of the output.
            unsafe { compute(shape, part.len(), block.vectors, &tile) };
        }
    }
}
