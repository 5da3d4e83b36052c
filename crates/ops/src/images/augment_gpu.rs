//! Changes of u8 images, each with parameters of its own, all images in one launch.

use candle_core::{DType, Tensor};

use super::steps::ImageStep;
use crate::dense::{Dense, dims4};
use crate::error::OpError;
use crate::gpu::{Arg, Gpu, Grid, Kernel, THREADS, narrow, u32_of, upload_table};

const OP: &str = "augment_images";
/// Color changes in a row of the table; `IMAGE_COLORS` of the kernels.
const N_COLORS: usize = 6;
/// Pixels that a block takes where rows are short.
const BLOCK_PIXELS: usize = 2048;
/// Bytes of a strip of columns where they are short; a power of two up to the number of threads.
const STRIP: usize = 64;
/// Most bytes of each of the two copies of a strip in shared memory.
const STRIP_BYTES: usize = 16 << 10;
/// Passes of the box filter.
const N_PASSES: f32 = 3.0;

/// See [`crate::augment_images`].
pub(crate) fn augment(
    gpu: &dyn Gpu,
    pixels: &Tensor,
    steps: &[Vec<ImageStep>],
) -> Result<Tensor, OpError> {
    let rounds: Vec<Vec<Row>> = steps.iter().map(|steps| Row::rounds(steps)).collect();
    let n_rounds = rounds.iter().map(Vec::len).max().unwrap_or(0);
    let mut pixels = Dense::rows(OP, pixels)?.tensor().clone();
    if pixels.elem_count() == 0 {
        return Ok(pixels);
    }
    for round in 0..n_rounds {
        let rows = rounds.iter().map(|rows| rows.get(round).copied().unwrap_or_default());
        pixels = one_round(gpu, &pixels, &rows.collect::<Vec<_>>())?;
    }
    Ok(pixels)
}

fn one_round(gpu: &dyn Gpu, pixels: &Tensor, rows: &[Row]) -> Result<Tensor, OpError> {
    let [n, side, _, _] = dims4(OP, "pixels", pixels)?;
    let table: Vec<u64> = rows.iter().flat_map(|row| row.words()).collect();
    let table = upload_table(gpu, OP, &table)?;
    let y = gpu.alloc(OP, pixels.dims(), DType::U8)?;

    let chunk = (BLOCK_PIXELS / side).clamp(1, side);
    let n_blocks = n * side.div_ceil(chunk);
    let sums = gpu.alloc(OP, &[n_blocks], DType::U32)?;
    let copy = (chunk * side * 3).next_multiple_of(16);
    let grid = |n_blocks, shared_bytes| {
        let blocks = [narrow(OP, n_blocks)?, 1];
        Ok(Grid { blocks, threads: THREADS, shared_bytes: narrow(OP, shared_bytes)? })
    };
    let [side_arg, chunk_arg] = [u32_of(OP, side)?, u32_of(OP, chunk)?];
    if rows.iter().any(Row::has_contrast) {
        let args = [Arg::In(pixels), Arg::In(&table), Arg::Out(&sums), side_arg, chunk_arg];
        gpu.launch(OP, Kernel::new("image_luma_sums"), grid(n_blocks, copy)?, &args)?;
    }
    let args =
        [Arg::In(pixels), Arg::In(&table), Arg::In(&sums), Arg::Out(&y), side_arg, chunk_arg];
    gpu.launch(OP, Kernel::new("image_rows"), grid(n_blocks, 2 * copy)?, &args)?;

    if rows.iter().any(|row| row.blur.is_some()) {
        let mut strip = STRIP;
        while strip * side > STRIP_BYTES {
            strip /= 2;
        }
        let grid = grid(n * (3 * side).div_ceil(strip), 2 * (strip * side).next_multiple_of(16))?;
        let args = [Arg::In(&table), Arg::Out(&y), side_arg, u32_of(OP, strip)?];
        gpu.launch(OP, Kernel::new("image_columns"), grid, &args)?;
    }
    Ok(y)
}

/// The steps that the kernels apply in one pass: color changes with one mean at most, then a blur.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    colors: [Option<Color>; N_COLORS],
    blur: Option<BoxFilter>,
    flip: bool,
}

/// A color change as the kernels take it; `ColorKind` of the kernels numbers them.
#[derive(Debug, Clone, Copy)]
enum Color {
    Brightness(f32),
    Contrast(f32),
    Saturation(f32),
    /// In 255ths of a turn.
    Hue(u8),
    Grayscale,
}

impl Row {
    /// An image's steps; one row does for those of the papers.
    fn rounds(steps: &[ImageStep]) -> Vec<Self> {
        let mut rounds = Vec::new();
        let mut row = Self::default();
        for step in steps {
            if !row.add(*step) {
                rounds.push(std::mem::take(&mut row));
                row.add(*step);
            }
        }
        rounds.push(row);
        rounds
    }

    /// Whether the row has room for the step after what is in it.
    fn add(&mut self, step: ImageStep) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "Pillow computes in single precision")]
        let single = |number: f64| number as f32;
        let color = match step {
            // It commutes with all others: they treat both sides alike.
            ImageStep::Flip => {
                self.flip = !self.flip;
                return true;
            }
            ImageStep::Blur { sigma } => {
                let has_room = self.blur.is_none();
                self.blur = self.blur.or_else(|| BoxFilter::new(single(sigma)));
                return has_room;
            }
            ImageStep::Brightness(factor) => Color::Brightness(single(factor)),
            ImageStep::Contrast(factor) => Color::Contrast(single(factor)),
            ImageStep::Saturation(factor) => Color::Saturation(single(factor)),
            ImageStep::Hue(turn) => Color::Hue(in_255ths(turn)),
            ImageStep::Grayscale => Color::Grayscale,
        };
        let second_mean = matches!(color, Color::Contrast(_)) && self.has_contrast();
        let free = self.colors.iter_mut().find(|color| color.is_none());
        match free {
            Some(free) if self.blur.is_none() && !second_mean => {
                *free = Some(color);
                true
            }
            _ => false,
        }
    }

    fn has_contrast(&self) -> bool {
        self.colors.iter().any(|color| matches!(color, Some(Color::Contrast(_))))
    }

    /// The row in the table of the kernels.
    fn words(&self) -> [u64; N_COLORS + 2] {
        let pair = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        let color = |color: Option<Color>| match color {
            None => 0,
            Some(Color::Brightness(factor)) => pair(1, factor.to_bits()),
            Some(Color::Contrast(factor)) => pair(2, factor.to_bits()),
            Some(Color::Saturation(factor)) => pair(3, factor.to_bits()),
            Some(Color::Hue(turn)) => pair(4, turn.into()),
            Some(Color::Grayscale) => pair(5, 0),
        };
        let [a, b, c, d, e, f] = self.colors.map(color);
        let BoxFilter { radius, near, far } = self.blur.unwrap_or_default();
        [a, b, c, d, e, f, pair(near, far), pair(radius, self.flip.into())]
    }
}

/// A turn of the hue in units of Pillow's wheel, truncated towards zero.
#[expect(clippy::cast_possible_truncation, reason = "the turn wraps around the wheel")]
#[expect(clippy::cast_sign_loss, reason = "the turn wraps around the wheel")]
fn in_255ths(turn: f64) -> u8 {
    ((turn * 255.0) as i32) as u8
}

/// The filter that Pillow's `GaussianBlur` applies three times to rows and three times to columns:
/// weight `near` on 2·radius + 1 samples and `far` on the two beyond, in 2⁻²⁴.
#[derive(Debug, Clone, Copy, Default)]
struct BoxFilter {
    radius: u32,
    near: u32,
    far: u32,
}

impl BoxFilter {
    /// None if the filter changes nothing.
    #[expect(clippy::cast_possible_truncation, reason = "C's conversions (BoxBlur.c)")]
    #[expect(clippy::cast_sign_loss, reason = "radii and weights are not negative")]
    fn new(sigma: f32) -> Option<Self> {
        let one = 1_u32 << 24;
        let variance = sigma * sigma / N_PASSES;
        let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
        let inner = ((f64::from(length) - 1.0) / 2.0).floor() as f32;
        let mut rest = (2.0 * inner + 1.0) * (inner * (inner + 1.0) - 3.0 * variance);
        rest /= 6.0 * (variance - (inner + 1.0) * (inner + 1.0));
        let box_radius = inner + rest;
        let radius = box_radius as u32;
        let near = (16_777_216.0 / (box_radius * 2.0 + 1.0)) as u32;
        let far = one.wrapping_sub((2 * radius + 1).wrapping_mul(near)) / 2;
        (near != one).then_some(Self { radius, near, far })
    }
}
