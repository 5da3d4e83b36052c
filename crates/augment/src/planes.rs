//! A view in three planes, the form in which loops over pixels vectorize.

use moco_jpeg::{put_together, take_apart, vectorized};

use crate::RgbImage;

/// An image whose red, green and blue samples are stored separately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planes {
    width: usize,
    height: usize,
    /// `[3, height, width]`.
    samples: Vec<u8>,
}

impl Planes {
    pub(crate) fn new(image: &RgbImage) -> Self {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let mut planes = Self { width, height, samples: vec![0; 3 * width * height] };
        let pixels = image.triples();
        vectorized(
            #[inline(always)]
            |simd| take_apart(simd, pixels, planes.channels_mut()),
        );
        planes
    }

    /// Puts the samples back into an image of the same size.
    pub(crate) fn store(&self, image: &mut RgbImage) {
        vectorized(
            #[inline(always)]
            |simd| put_together(simd, self.channels(), image.triples_mut()),
        );
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn samples(&self) -> &[u8] {
        &self.samples
    }

    pub(crate) fn samples_mut(&mut self) -> &mut [u8] {
        &mut self.samples
    }

    pub(crate) fn channels(&self) -> [&[u8]; 3] {
        let (red, rest) = self.samples.split_at(self.width * self.height);
        let (green, blue) = rest.split_at(self.width * self.height);
        [red, green, blue]
    }

    pub(crate) fn channels_mut(&mut self) -> [&mut [u8]; 3] {
        let (red, rest) = self.samples.split_at_mut(self.width * self.height);
        let (green, blue) = rest.split_at_mut(self.width * self.height);
        [red, green, blue]
    }
}

/// Applies `change` to an image through its planes.
pub(crate) fn through_planes(image: &mut RgbImage, change: impl FnOnce(&mut Planes)) {
    let mut planes = Planes::new(image);
    change(&mut planes);
    planes.store(image);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_hold_each_channel_and_go_back() {
        for (width, height) in [(1, 1), (5, 3), (16, 1), (17, 4), (50, 7)] {
            let pixels: Vec<u8> = (0..3 * width * height).map(|i| (i * 7 % 251) as u8).collect();
            let image = RgbImage::new(width, height, pixels).unwrap();
            let planes = Planes::new(&image);
            for (channel, samples) in planes.channels().iter().enumerate() {
                assert!(samples.iter().zip(image.triples()).all(|(s, pixel)| *s == pixel[channel]));
            }
            let mut back = RgbImage::new(width, height, vec![0; image.pixels().len()]).unwrap();
            planes.store(&mut back);
            assert_eq!(back, image);
        }
    }
}
