//! From u8 to normalized f32, planes apart, as torchvision's `ToTensor` and `Normalize` give it.

use moco_jpeg::vectorized;

use crate::planes::Planes;
use crate::{AugmentError, Fidelity, RgbImage};

/// Scales samples to 0 to 1, then subtracts a mean and divides by a deviation.
#[derive(Debug, Clone)]
pub struct Normalizer {
    mean: [f32; 3],
    std: [f32; 3],
    tables: [[f32; 256]; 3],
}

impl Normalizer {
    /// For the mean and standard deviation of each channel, in units of 0 to 1.
    #[must_use]
    pub fn new(mean: [f32; 3], std: [f32; 3]) -> Self {
        let value =
            |channel: usize, sample: usize| (sample as f32 / 255.0 - mean[channel]) / std[channel];
        let table = |channel| std::array::from_fn(|sample| value(channel, sample));
        Self { mean, std, tables: std::array::from_fn(table) }
    }

    /// Fills `out`, `[3, height, width]`. `Exact` has torch's bits, `Fast` is within 1e-6 of them.
    ///
    /// # Errors
    /// [`AugmentError::PixelCount`] if `out` is not as long as the image has samples.
    pub fn apply(
        &self,
        image: &RgbImage,
        fidelity: Fidelity,
        out: &mut [f32],
    ) -> Result<(), AugmentError> {
        let n_samples = image.pixels().len();
        if out.len() != n_samples {
            let (width, height) = (image.width(), image.height());
            let expected = n_samples as u64;
            return Err(AugmentError::PixelCount { width, height, expected, got: out.len() });
        }
        let planes = Planes::new(image);
        let outs = out.chunks_exact_mut(n_samples / 3);
        for (i, (samples, out)) in planes.channels().into_iter().zip(outs).enumerate() {
            match fidelity {
                Fidelity::Exact => look_up(&self.tables[i], samples, out),
                Fidelity::Fast => {
                    let scale = 1.0 / (255.0 * self.std[i]);
                    let shift = -self.mean[i] / self.std[i];
                    vectorized(
                        #[inline(always)]
                        |_| scale_and_shift(scale, shift, samples, out),
                    );
                }
            }
        }
        Ok(())
    }
}

fn look_up(table: &[f32; 256], samples: &[u8], out: &mut [f32]) {
    for (out, sample) in out.iter_mut().zip(samples) {
        *out = table[usize::from(*sample)];
    }
}

#[inline(always)]
fn scale_and_shift(scale: f32, shift: f32, samples: &[u8], out: &mut [f32]) {
    for (out, sample) in out.iter_mut().zip(samples) {
        *out = f32::from(*sample) * scale + shift;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_has_its_mean_and_deviation() {
        let normalizer = Normalizer::new([0.5, 0.25, 0.0], [0.5, 0.25, 1.0]);
        let image = RgbImage::new(2, 1, vec![0, 0, 0, 255, 255, 51]).unwrap();
        for fidelity in [Fidelity::Exact, Fidelity::Fast] {
            let mut out = [0.0; 6];
            normalizer.apply(&image, fidelity, &mut out).unwrap();
            let expected = [-1.0, 1.0, -1.0, 3.0, 0.0, 0.2];
            assert!(out.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{out:?}");
        }
        let error = normalizer.apply(&image, Fidelity::Exact, &mut [0.0; 5]).unwrap_err();
        assert_eq!(error.to_string(), "a 2x1 RGB image needs 6 bytes, got 5");
    }
}
