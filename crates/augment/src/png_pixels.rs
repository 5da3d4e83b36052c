//! From the compressed data of a PNG file to RGB, with Pillow's `convert("RGB")` for other pixel types.
//!
//! Alpha and transparent colors are ignored, as Pillow ignores them.

use fdeflate::{DecompressionError, Decompressor};

use crate::png_chunks::{Color, Mode, PngFault, PngFile};

/// A pass of an interlaced picture: first column and row, and the steps to the next.
struct Pass {
    left: usize,
    top: usize,
    across: usize,
    down: usize,
}

const fn pass(left: usize, top: usize, across: usize, down: usize) -> Pass {
    Pass { left, top, across, down }
}

/// A picture that is not interlaced.
const WHOLE: [Pass; 1] = [pass(0, 0, 1, 1)];
/// The passes of an interlaced one.
const ADAM7: [Pass; 7] = [
    pass(0, 0, 8, 8),
    pass(4, 0, 8, 8),
    pass(0, 4, 4, 8),
    pass(2, 0, 4, 4),
    pass(0, 2, 2, 4),
    pass(1, 0, 2, 2),
    pass(0, 1, 1, 2),
];

impl Pass {
    /// Pixels in a row, and rows.
    fn sides(&self, width: usize, height: usize) -> (usize, usize) {
        let n = |side: usize, first: usize, step: usize| side.saturating_sub(first).div_ceil(step);
        let sides = (n(width, self.left, self.across), n(height, self.top, self.down));
        // A pass without columns has no rows either.
        if sides.0 == 0 { (0, 0) } else { sides }
    }
}

/// The pixels, rows of RGB.
pub(crate) fn decode(file: &PngFile<'_>) -> Result<Vec<u8>, PngFault> {
    let (width, height) = (file.width as usize, file.height as usize);
    let bits = file.mode.depth * file.mode.color.n_samples();
    let passes: &[Pass] = if file.is_interlaced { &ADAM7 } else { &WHOLE };
    let row_bytes = |n: usize| (n * bits).div_ceil(8);
    let n_bytes = passes.iter().map(|pass| pass.sides(width, height));
    let n_bytes = n_bytes.map(|(across, down)| down * (1 + row_bytes(across))).sum();
    let mut data = inflate(&file.data, n_bytes)?;
    let mut rest = data.as_mut_slice();
    let mut pixels = vec![0; 3 * width * height];
    let palette = palette(file.palette);
    for pass in passes {
        let (across, down) = pass.sides(width, height);
        let (rows, others) = rest.split_at_mut(down * (1 + row_bytes(across)));
        rest = others;
        let before = vec![0; row_bytes(across)];
        let mut before = before.as_slice();
        let mut row_pixels = vec![0; 3 * across];
        for (y, row) in rows.chunks_exact_mut(1 + row_bytes(across)).enumerate() {
            let Some((filter, row)) = row.split_first_mut() else { continue };
            unfilter(*filter, row, before, bits.div_ceil(8))?;
            let y = pass.top + y * pass.down;
            let out = &mut pixels[3 * y * width..][..3 * width];
            if pass.across == 1 {
                to_rgb(file.mode, &palette, row, out);
            } else {
                to_rgb(file.mode, &palette, row, &mut row_pixels);
                let columns = out.as_chunks_mut::<3>().0[pass.left..].iter_mut();
                let columns = columns.step_by(pass.across);
                columns.zip(row_pixels.as_chunks::<3>().0).for_each(|(to, from)| *to = *from);
            }
            before = row;
        }
    }
    Ok(pixels)
}

/// Decompresses data that has to hold `n_bytes`; what follows them is not looked at.
fn inflate(pieces: &[&[u8]], n_bytes: usize) -> Result<Vec<u8>, PngFault> {
    let mut data = vec![0; n_bytes + 1];
    let mut decompressor = Decompressor::new();
    let mut n_done = 0;
    for (i, piece) in pieces.iter().enumerate() {
        let is_last = i + 1 == pieces.len();
        let mut piece = *piece;
        loop {
            let (n_read, n_written) = decompressor
                .read(piece, &mut data, n_done, is_last)
                .map_err(|error| fault(&error))?;
            (piece, n_done) = (&piece[n_read..], n_done + n_written);
            if decompressor.is_done() || n_done > n_bytes || piece.is_empty() {
                break;
            }
        }
        if decompressor.is_done() || n_done > n_bytes {
            break;
        }
    }
    if n_done < n_bytes {
        return Err(PngFault::Damaged("its compressed data ends before the last row"));
    }
    data.truncate(n_bytes);
    Ok(data)
}

fn fault(error: &DecompressionError) -> PngFault {
    PngFault::Damaged(match error {
        DecompressionError::BadZlibHeader => "its compressed data has no header of zlib",
        DecompressionError::InsufficientInput => "its compressed data ends before its checksum",
        DecompressionError::WrongChecksum => "its data has a wrong checksum",
        DecompressionError::DistanceTooFarBack | DecompressionError::InputStartsWithRun => {
            "its compressed data repeats bytes from before its start"
        }
        DecompressionError::InvalidLiteralLengthCode | DecompressionError::InvalidDistanceCode => {
            "its compressed data has a code that is not in its table"
        }
        _ => "its compressed data has a block with a wrong header",
    })
}

/// Takes back the filter of a row, of which `bpp` bytes are a pixel; `before` is the row above.
fn unfilter(filter: u8, row: &mut [u8], before: &[u8], bpp: usize) -> Result<(), PngFault> {
    match filter {
        0 => {}
        1 => by_pixels(row, before, bpp, |left, _, _| left),
        2 => row.iter_mut().zip(before).for_each(|(byte, up)| *byte = byte.wrapping_add(*up)),
        3 => by_pixels(row, before, bpp, |left, up, _| left.midpoint(up)),
        4 => by_pixels(row, before, bpp, paeth),
        _ => return Err(PngFault::Damaged("a row has an unknown filter")),
    }
    Ok(())
}

/// Adds what `predict` makes of the bytes to the left, above, and above to the left.
#[inline(always)]
fn by_pixels(row: &mut [u8], before: &[u8], bpp: usize, predict: impl Fn(u8, u8, u8) -> u8) {
    match bpp {
        1 => by_pixels_of::<1>(row, before, predict),
        2 => by_pixels_of::<2>(row, before, predict),
        3 => by_pixels_of::<3>(row, before, predict),
        4 => by_pixels_of::<4>(row, before, predict),
        6 => by_pixels_of::<6>(row, before, predict),
        _ => by_pixels_of::<8>(row, before, predict),
    }
}

#[inline(always)]
fn by_pixels_of<const BPP: usize>(
    row: &mut [u8],
    before: &[u8],
    predict: impl Fn(u8, u8, u8) -> u8,
) {
    let (mut left, mut corner) = ([0; BPP], [0; BPP]);
    for (pixel, up) in row.as_chunks_mut::<BPP>().0.iter_mut().zip(before.as_chunks::<BPP>().0) {
        for i in 0..BPP {
            pixel[i] = pixel[i].wrapping_add(predict(left[i], up[i], corner[i]));
        }
        (left, corner) = (*pixel, *up);
    }
}

/// Whichever of the three is nearest to left + up - corner; the first of equals.
#[inline(always)]
fn paeth(left: u8, up: u8, corner: u8) -> u8 {
    let [a, b, c] = [left, up, corner].map(i16::from);
    let (to_left, to_up, to_corner) = ((b - c).abs(), (a - c).abs(), (a + b - 2 * c).abs());
    if to_left <= to_up && to_left <= to_corner {
        left
    } else if to_up <= to_corner {
        up
    } else {
        corner
    }
}

/// All colors of a palette; those that the file does not have are black.
fn palette(bytes: &[u8]) -> [[u8; 3]; 256] {
    let mut palette = [[0; 3]; 256];
    palette.iter_mut().zip(bytes.as_chunks::<3>().0).for_each(|(to, from)| *to = *from);
    palette
}

/// Converts a row of samples.
fn to_rgb(mode: Mode, palette: &[[u8; 3]; 256], row: &[u8], out: &mut [u8]) {
    let out = out.as_chunks_mut::<3>().0.iter_mut();
    match (mode.color, mode.depth) {
        (Color::Rgb, 8) => out.zip(row.as_chunks::<3>().0).for_each(|(to, rgb)| *to = *rgb),
        (Color::Rgba, 8) => {
            out.zip(row.as_chunks::<4>().0).for_each(|(to, [r, g, b, _])| *to = [*r, *g, *b]);
        }
        (Color::Gray, 8) => out.zip(row).for_each(|(to, gray)| *to = [*gray; 3]),
        (Color::GrayAlpha, 8) => {
            out.zip(row.as_chunks::<2>().0).for_each(|(to, [gray, _])| *to = [*gray; 3]);
        }
        (Color::Palette, 8) => {
            out.zip(row).for_each(|(to, index)| *to = palette[usize::from(*index)]);
        }
        // Pillow's mode I;16 clamps instead of scaling.
        (Color::Gray, 16) => out.zip(row.as_chunks::<2>().0).for_each(|(to, sample)| {
            *to = [u8::try_from(u16::from_be_bytes(*sample)).unwrap_or(u8::MAX); 3];
        }),
        (Color::GrayAlpha, _) => {
            out.zip(row.as_chunks::<4>().0).for_each(|(to, [gray, ..])| *to = [*gray; 3])
        }
        (Color::Rgb, _) => out
            .zip(row.as_chunks::<6>().0)
            .for_each(|(to, pixel)| *to = [pixel[0], pixel[2], pixel[4]]),
        (Color::Rgba, _) => out
            .zip(row.as_chunks::<8>().0)
            .for_each(|(to, pixel)| *to = [pixel[0], pixel[2], pixel[4]]),
        (Color::Gray | Color::Palette, depth) => {
            let per_byte = 8 / depth;
            let max = u8::MAX >> (8 - depth);
            for (x, to) in out.enumerate() {
                let sample = (row[x / per_byte] >> (8 - depth * (x % per_byte + 1))) & max;
                *to = match mode.color {
                    Color::Palette => palette[usize::from(sample)],
                    _ => [sample * (u8::MAX / max); 3],
                };
            }
        }
    }
}
