//! The contact sheet: a row an image, the image with the boxes of its views before them.

use std::io::Cursor;

use image::imageops::{FilterType, overlay, resize};
use image::{ImageFormat, ImageResult, Rgb, RgbImage};
use moco_augment::{CropBox, Frame};
use moco_cli::{Exit, usage};

use crate::rows::{Row, Shown};

const PAPER: Rgb<u8> = Rgb([246, 245, 242]);
/// The query's color and the key's, distinguishable with any color vision.
const INKS: [Rgb<u8>; 2] = [Rgb([230, 120, 20]), Rgb([30, 110, 200])];
/// Around everything, and between rows and draws.
const GAP: u32 = 14;
/// Between an image or view and its neighbor in the same draw.
const NARROW: u32 = 6;
const FRAME: u32 = 3;
/// Views smaller than this are enlarged by a whole number.
const LEAST_SIDE: u32 = 128;

/// Pixels of the largest picture.
const MAX_PIXELS: u64 = 100_000_000;

/// Refuses more rows and draws of views of `side` pixels than a picture should hold.
pub(crate) fn check_size(side: u32, n_rows: usize, n_draws: u32) -> anyhow::Result<()> {
    let cell = u64::from(side.saturating_mul(zoom(side))) + u64::from(2 * FRAME);
    let n_cells = (2 * u64::from(n_draws) + 1).saturating_mul(n_rows as u64);
    let n_pixels = cell.saturating_mul(cell).saturating_mul(n_cells);
    if n_pixels > MAX_PIXELS {
        let text = format!(
            "a picture of {n_pixels} pixels is too large, the limit is {MAX_PIXELS}: \
             ask for fewer --images or --draws"
        );
        return Err(usage(Exit::Usage, text));
    }
    Ok(())
}

fn zoom(side: u32) -> u32 {
    LEAST_SIDE.div_ceil(side.max(1))
}

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    width: u32,
    height: u32,
}

/// A box in a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rect {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

/// Draws all rows.
pub(crate) fn draw(shown: &Shown) -> RgbImage {
    let side = |row: &Row| row.draws.first().map_or(1, |[query, _]| query.pixels.width());
    let side = shown.rows.iter().map(side).max().unwrap_or(1);
    let zoom = zoom(side);
    let cell = side * zoom + 2 * FRAME;
    // Most photos are 4:3 or narrower.
    let boxed = |row| boxed(shown, row, Size { width: cell * 4 / 3, height: cell }, zoom);
    let images: Vec<RgbImage> = shown.rows.iter().map(boxed).collect();
    let image_width = images.iter().map(RgbImage::width).max().unwrap_or(0);
    let n_draws = shown.rows.iter().map(|row| row.draws.len()).max().unwrap_or(0) as u32;
    let width = 2 * GAP + image_width + n_draws * (GAP + 2 * cell + NARROW);
    let height = GAP + shown.rows.len() as u32 * (cell + GAP);
    let mut sheet = RgbImage::from_pixel(width, height, PAPER);
    let tops = (GAP..).step_by((cell + GAP) as usize);
    for ((row, image), top) in shown.rows.iter().zip(&images).zip(tops) {
        let left = GAP + (image_width - image.width()) / 2;
        place(&mut sheet, image, left, top + (cell - image.height()) / 2);
        let mut left = GAP + image_width + GAP;
        for draw in &row.draws {
            for (view, ink) in draw.iter().zip(INKS) {
                outline(&mut sheet, Rect { left, top, width: cell, height: cell }, ink);
                place(&mut sheet, &enlarged(&view.pixels, zoom), left + FRAME, top + FRAME);
                left += cell + NARROW;
            }
            left += GAP - NARROW;
        }
    }
    sheet
}

/// The file of a picture.
pub(crate) fn to_png(picture: &RgbImage) -> ImageResult<Vec<u8>> {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png)?;
    Ok(file.into_inner())
}

/// A row's image within `bounds`, with the boxes of the first draw.
fn boxed(shown: &Shown, row: &Row, bounds: Size, zoom: u32) -> RgbImage {
    let image = &shown.images[&row.sample_index].pixels;
    let size = Size { width: image.width(), height: image.height() };
    let fits = size.width * zoom <= bounds.width && size.height * zoom <= bounds.height;
    let mut small = if fits {
        enlarged(image, zoom)
    } else {
        let Size { width, height } = fitted(size, bounds);
        resize(&buffer(image), width, height, FilterType::Triangle)
    };
    let views = row.draws.iter().take(1).flatten().zip(INKS);
    for (view, ink) in views.filter(|(view, _)| view.sample_index == row.sample_index) {
        if let Frame::ResizedCrop(crop) = &view.drawn.frame {
            let small_size = Size { width: small.width(), height: small.height() };
            outline(&mut small, scaled(crop, size, small_size), ink);
        }
    }
    small
}

/// The greatest size of the same ratio within bounds.
fn fitted(size: Size, bounds: Size) -> Size {
    let scaled = |side: u32, to: u32, from: u32| {
        u32::try_from(u64::from(side) * u64::from(to) / u64::from(from)).unwrap_or(to).max(1)
    };
    let by_width = scaled(size.height, bounds.width, size.width);
    if by_width <= bounds.height {
        Size { width: bounds.width, height: by_width }
    } else {
        Size { width: scaled(size.width, bounds.height, size.height), height: bounds.height }
    }
}

/// A box of an image of size `from` in the same image scaled to `to`.
fn scaled(crop: &CropBox, from: Size, to: Size) -> Rect {
    let at = |x: u32, from: u32, to: u32| {
        u32::try_from(u64::from(x) * u64::from(to) / u64::from(from)).unwrap_or(to)
    };
    let (left, top) = (at(crop.left, from.width, to.width), at(crop.top, from.height, to.height));
    let right = at(crop.left + crop.width, from.width, to.width);
    let bottom = at(crop.top + crop.height, from.height, to.height);
    Rect { left, top, width: right - left, height: bottom - top }
}

fn buffer(image: &moco_augment::RgbImage) -> RgbImage {
    let pixels = image.pixels();
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let at = 3 * (y as usize * image.width() as usize + x as usize);
        Rgb([pixels[at], pixels[at + 1], pixels[at + 2]])
    })
}

/// Each pixel as a square of `zoom` pixels.
fn enlarged(image: &moco_augment::RgbImage, zoom: u32) -> RgbImage {
    let image = buffer(image);
    if zoom == 1 {
        return image;
    }
    resize(&image, image.width() * zoom, image.height() * zoom, FilterType::Nearest)
}

fn place(sheet: &mut RgbImage, image: &RgbImage, left: u32, top: u32) {
    overlay(sheet, image, left.into(), top.into());
}

/// A frame inside these bounds.
fn outline(sheet: &mut RgbImage, bounds: Rect, ink: Rgb<u8>) {
    let Rect { left, top, width, height } = bounds;
    for y in 0..height {
        for x in 0..width {
            let to_edge = x.min(y).min(width - 1 - x).min(height - 1 - y);
            if to_edge < FRAME {
                sheet.put_pixel(left + x, top + y, ink);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_keeps_its_ratio_and_touches_the_bounds() {
        let cases = [
            ((500, 375), (200, 150), (200, 150)),
            ((375, 500), (200, 150), (112, 150)),
            ((1000, 10), (200, 150), (200, 2)),
            ((1, 20_000), (200, 150), (1, 150)),
        ];
        for (sides, bounds, expected) in cases {
            let [size, bounds, expected] =
                [sides, bounds, expected].map(|(width, height)| Size { width, height });
            assert_eq!(fitted(size, bounds), expected);
        }
    }

    #[test]
    fn a_box_scales_with_the_image() {
        let crop = CropBox { top: 10, left: 20, height: 50, width: 30 };
        let from = Size { width: 100, height: 60 };
        let half = Rect { left: 10, top: 5, width: 15, height: 25 };
        assert_eq!(scaled(&crop, from, Size { width: 50, height: 30 }), half);
        let fourfold = Rect { left: 80, top: 40, width: 120, height: 200 };
        assert_eq!(scaled(&crop, from, Size { width: 400, height: 240 }), fourfold);
    }

    #[test]
    fn an_outline_is_hollow() {
        let mut sheet = RgbImage::from_pixel(20, 20, PAPER);
        outline(&mut sheet, Rect { left: 4, top: 2, width: 10, height: 12 }, INKS[0]);
        let inked = |x: u32, y: u32| sheet.get_pixel(x, y) == &INKS[0];
        assert!(inked(4, 2) && inked(13, 13) && inked(6, 8) && inked(9, 4));
        assert!(!inked(3, 2) && !inked(14, 2) && !inked(7, 5) && !inked(9, 14));
    }
}
