//! From planes to RGB: libjpeg's conversions in 16-bit fixed point (`jdcolor.c`) and Pillow's from CMYK.

use crate::channels::put_together;
use crate::frame::Frame;
use crate::header::Transform;
use crate::simd::vectorized;
use crate::upsample::{Columns, Row};

/// The pixels of the frame's region, rows of RGB.
pub(crate) fn to_rgb(frame: &Frame) -> Vec<u8> {
    let region = &frame.region;
    let (left, n) = (region.left as usize, region.width as usize);
    let columns = Columns { left, n };
    let mut pixels = vec![0; 3 * n * region.height as usize];
    let mut rows: [Row; 4] = Default::default();
    let mut converted = [(); 3].map(|()| vec![0; n]);
    vectorized(
        #[inline(always)]
        |simd| {
            for (y, out) in (region.top as usize..).zip(pixels.chunks_exact_mut(3 * n)) {
                let mut channels: [&[u8]; 4] = [&[]; 4];
                for ((plane, row), channel) in frame.planes.iter().zip(&mut rows).zip(&mut channels)
                {
                    *channel = row.fill(frame, plane, y, columns);
                }
                convert_row(frame.transform, channels, converted.each_mut().map(Vec::as_mut_slice));
                // Pixels written one by one would be shuffled less well.
                put_together(simd, converted.each_ref().map(Vec::as_slice), out.as_chunks_mut().0);
            }
        },
    );
    pixels
}

#[inline(always)]
fn convert_row(transform: Transform, [a, b, c, d]: [&[u8]; 4], [red, green, blue]: [&mut [u8]; 3]) {
    let n = red.len();
    match transform {
        Transform::Gray => {
            for channel in [red, green, blue] {
                channel.copy_from_slice(a);
            }
        }
        Transform::Rgb => {
            for (channel, from) in [(red, a), (green, b), (blue, c)] {
                channel.copy_from_slice(from);
            }
        }
        Transform::Ycc => {
            let (y, cb, cr, green, blue) =
                (&a[..n], &b[..n], &c[..n], &mut green[..n], &mut blue[..n]);
            for i in 0..n {
                [red[i], green[i], blue[i]] = rgb(y[i], cb[i], cr[i]);
            }
        }
        Transform::Cmyk | Transform::Ycck => {
            for i in 0..n {
                // Files hold the complement of each ink, so these are 255 minus it, as red, green and
                // blue are; `YCCK` is the transform of the complement of what is stored.
                let inks = if transform == Transform::Ycck {
                    rgb(a[i], b[i], c[i])
                } else {
                    [255 - a[i], 255 - b[i], 255 - c[i]]
                };
                [red[i], green[i], blue[i]] = inks.map(|ink| over_black(ink, d[i]));
            }
        }
    }
}

/// Pillow's `cmyk2rgb` for one ink, with 255 minus the black.
#[inline(always)]
fn over_black(ink: u8, not_black: u8) -> u8 {
    let product = u32::from(ink) * u32::from(not_black) + 128;
    not_black - (((product >> 8) + product) >> 8) as u8
}

/// libjpeg's `ycc_rgb_convert`, with products of 16 bits.
///
/// 1.402 is split into 1 + 0.402, 1.772 into 2 - 0.228 and 0.71414 into 1 - 0.28586. Doubling before the
/// upper half is taken, adding 1 and halving rounds as libjpeg's tables do.
#[inline(always)]
fn rgb(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (y, cb, cr) = (i16::from(y), i16::from(cb) - 128, i16::from(cr) - 128);
    let times =
        |x: i16, factor: i16| ((((i32::from(2 * x) * i32::from(factor)) >> 16) as i16) + 1) >> 1;
    let green = ((-22554 * i32::from(cb) + 18734 * i32::from(cr) + 32768) >> 16) as i16;
    let red = y + cr + times(cr, 26345);
    let green = y - cr + green;
    let blue = y + 2 * cb + times(cb, -14942);
    [red, green, blue].map(|x| x.clamp(0, 255) as u8)
}
