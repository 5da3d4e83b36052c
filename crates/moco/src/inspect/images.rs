//! What the pixels of a batch say: flat images, views without a difference, views of different images.

use candle_core::{DType, Device, Tensor};
use moco_ops::{select_rows, upload};
use serde::Serialize;

use crate::batch::Batch;
use crate::error::{During, MocoError};

/// Images of a batch that are looked at.
const N_IMAGES: usize = 64;
/// Pixels that differ by less are equal: about one of 255 levels where the standard deviation is 0.25.
const LEVEL: f64 = 0.02;

/// Numbers of the first images of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ImageNumbers {
    /// Images that were looked at.
    pub images_seen: usize,
    /// Share of images of which a view has one color only, in percent.
    pub flat_percent: f64,
    /// Share of images whose two views have equal pixels, in percent.
    pub equal_views_percent: f64,
    /// Mean squared distance of the mean colors of an image's two views.
    pub own_color_distance: f64,
    /// The same for views of two different images. It is about as large where the views do not belong together;
    /// 1 − own/other is the correlation of the views' mean colors.
    pub other_color_distance: f64,
}

impl ImageNumbers {
    pub(super) fn of(batch: &Batch) -> Result<Self, MocoError> {
        let (q, k) = (Views::of(&batch.im_q)?, Views::of(&batch.im_k)?);
        let n = q.n.min(k.n);
        let percent = |is: &dyn Fn(usize) -> bool| {
            100.0 * count((0..n).filter(|i| is(*i)).count()) / count(n.max(1))
        };
        let (mut own, mut other) = (0.0, 0.0);
        for i in 0..n {
            for j in 0..n {
                let pair = [i, j];
                let distance = q.color_distance(&k, pair);
                if i == j { own += distance } else { other += distance }
            }
        }
        Ok(Self {
            images_seen: n,
            flat_percent: percent(&|i| q.is_flat(i) || k.is_flat(i)),
            equal_views_percent: percent(&|i| q.is_equal(&k, i)),
            own_color_distance: own / count(n.max(1)),
            other_color_distance: other / count((n * n.saturating_sub(1)).max(1)),
        })
    }
}

/// The pixels of one view of each image, `[n, C, pixels]`.
struct Views {
    n: usize,
    channels: usize,
    pixels: Vec<f32>,
    /// `[n, C]`.
    colors: Vec<f64>,
}

impl Views {
    fn of(images: &Tensor) -> Result<Self, MocoError> {
        let (n, channels, ..) = images.dims4().during("looking at images")?;
        let n = n.min(N_IMAGES);
        let rows = u32::try_from(n).unwrap_or(u32::MAX);
        let rows = Tensor::arange(0_u32, rows, &Device::Cpu).during("looking at images")?;
        let first = select_rows(images, &upload(&rows, images.device())?)?;
        let numbers = |x: &Tensor| {
            let x = x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
            x.flatten_all()?.to_vec1::<f32>()
        };
        let pixels = numbers(&first).during("looking at images")?;
        let mean = |channel: &[f32]| {
            channel.iter().map(|x| f64::from(*x)).sum::<f64>() / count(channel.len())
        };
        let colors =
            pixels.chunks((pixels.len() / (n * channels).max(1)).max(1)).map(mean).collect();
        Ok(Self { n, channels, pixels, colors })
    }

    fn image(&self, i: usize) -> &[f32] {
        let size = self.pixels.len() / self.n;
        &self.pixels[i * size..(i + 1) * size]
    }

    fn is_flat(&self, i: usize) -> bool {
        let image = self.image(i);
        let mut channels = image.chunks((image.len() / self.channels).max(1));
        channels.all(|channel| channel.iter().all(|x| is_same(*x, channel[0])))
    }

    fn is_equal(&self, other: &Self, i: usize) -> bool {
        let pairs = self.image(i).iter().zip(other.image(i));
        self.pixels.len() == other.pixels.len() && pairs.into_iter().all(|(a, b)| is_same(*a, *b))
    }

    /// Squared distance of the mean colors of this view's image i and the other view's image j.
    fn color_distance(&self, other: &Self, [i, j]: [usize; 2]) -> f64 {
        let color = |views: &Self, i: usize| i * views.channels..(i + 1) * views.channels;
        let pairs = self.colors[color(self, i)].iter().zip(&other.colors[color(other, j)]);
        pairs.map(|(a, b)| (a - b) * (a - b)).sum()
    }
}

fn is_same(a: f32, b: f32) -> bool {
    f64::from((a - b).abs()) < LEVEL
}

#[expect(clippy::cast_precision_loss, reason = "a batch is far below 2^53")]
fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three images `[3, 3, 1, 2]` of these values, each channel's two pixels.
    fn images(values: [[f32; 2]; 3]) -> Tensor {
        let pixels: Vec<f32> = values.iter().flat_map(|pixels| pixels.repeat(3)).collect();
        Tensor::from_vec(pixels, (3, 3, 1, 2), &Device::Cpu).unwrap()
    }

    #[test]
    fn flat_and_equal_images_are_counted_and_colors_compared() {
        let im_q = images([[0.0, 1.0], [2.0, 2.0], [5.0, 6.0]]);
        let im_k = images([[0.0, 1.01], [3.0, 3.0], [6.0, 5.0]]);
        let got = ImageNumbers::of(&Batch { im_q, im_k, sample_indices: Vec::new() }).unwrap();
        assert_eq!(got.images_seen, 3);
        assert!((got.flat_percent - 100.0 / 3.0).abs() < 1e-12);
        assert!((got.equal_views_percent - 100.0 / 3.0).abs() < 1e-12);
        // Mean colors are 0.5, 2, 5.5 and 0.505, 3, 5.5, in each of three channels.
        let squares = |differences: &[f64]| 3.0 * differences.iter().map(|d| d * d).sum::<f64>();
        let own = squares(&[0.005, 1.0, 0.0]) / 3.0;
        let other = squares(&[2.5, 5.0, 1.495, 3.5, 4.995, 2.5]) / 6.0;
        assert!((got.own_color_distance - own).abs() < 1e-6, "{got:?}");
        assert!((got.other_color_distance - other).abs() < 1e-6, "{got:?}");
    }
}
