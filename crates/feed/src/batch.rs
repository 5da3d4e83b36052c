//! The stations of a batch: bytes on the host, on its way to the device, tensors on the device.

use std::fmt;
use std::sync::Arc;

use candle_core::Tensor;
use moco_ingest::BadSample;
use moco_ops::{ArrivingImages, ImageStep, ImageUpload, OpError};
use moco_pipeline::{Feed, StageReport};

use crate::error::FeedError;
use crate::finish::image_steps;
use crate::plan::{FinishOn, Pairing};
use crate::views::AugmentedSample;

/// A batch on the host.
pub(crate) struct U8Batch {
    views: Vec<U8View>,
    sample_indices: Vec<u64>,
    bad_samples: Vec<BadSample>,
}

/// One view of each image of a batch.
struct U8View {
    /// `[N, H, W, 3]`.
    pixels: Vec<u8>,
    /// The steps that a GPU applies to each image; empty for views that are finished.
    steps: Vec<Vec<ImageStep>>,
}

impl U8Batch {
    /// Puts the views of samples together, query and key as `pairing` says.
    pub(crate) fn collate(
        samples: &[AugmentedSample],
        pairing: Pairing,
        finish_on: FinishOn,
    ) -> Self {
        let n_views = samples.first().map_or(0, |sample| sample.views.len());
        let views = (0..n_views)
            .map(|view| {
                let at_place = |place| {
                    let place = pairing.place_of(view, place, samples.len());
                    &usable(samples, place).views[view]
                };
                let images = || (0..samples.len()).map(at_place);
                // Whole images at a time: byte by byte this stage would hold a GPU up.
                let pixels: Vec<&[u8]> = images().map(|view| view.image.pixels()).collect();
                let steps = match finish_on {
                    FinishOn::Cpu => Vec::new(),
                    FinishOn::Gpu => images().map(|view| image_steps(&view.steps)).collect(),
                };
                U8View { pixels: pixels.concat(), steps }
            })
            .collect();
        let bad_samples = samples.iter().flat_map(|sample| sample.bad_samples.iter().cloned());
        Self {
            views,
            sample_indices: samples.iter().map(|sample| sample.sample_index).collect(),
            bad_samples: bad_samples.collect(),
        }
    }

    /// Sends the views, of `side` pixels a side, on their way.
    pub(crate) fn upload(
        self,
        upload: &ImageUpload,
        side: usize,
    ) -> Result<UploadingBatch, OpError> {
        let Self { views, sample_indices, bad_samples } = self;
        let dims = [sample_indices.len(), side, side];
        let views = views.into_iter().map(|view| upload.start(view.pixels, dims, view.steps));
        Ok(UploadingBatch { views: views.collect::<Result<_, _>>()?, sample_indices, bad_samples })
    }
}

/// The sample at a place; instead of one that is bad itself the next one that is not, if there is any, so that
/// the statistics of a batch are those of images.
fn usable(samples: &[AugmentedSample], place: usize) -> &AugmentedSample {
    let mut from_here = samples[place..].iter().chain(&samples[..place]);
    from_here.find(|sample| !sample.is_bad()).unwrap_or(&samples[place])
}

/// A batch whose views may still be on their way to the device.
pub(crate) struct UploadingBatch {
    views: Vec<ArrivingImages>,
    sample_indices: Vec<u64>,
    bad_samples: Vec<BadSample>,
}

/// A batch of views as the encoders take it.
#[derive(Debug)]
pub struct DeviceBatch {
    /// One tensor a view, `[N, 3, H, W]`, normalized, channels last in memory.
    pub views: Vec<Tensor>,
    /// Index of each sample.
    pub sample_indices: Vec<u64>,
    /// The samples that could not be used. In training others took their places; in an evaluation the rows
    /// of these indices show other images of the batch, or black, and the caller drops them.
    pub bad_samples: Vec<BadSample>,
}

/// Batches in order, on the device that computes.
pub struct DeviceBatches {
    pub(crate) feed: Feed<UploadingBatch>,
    pub(crate) upload: Arc<ImageUpload>,
}

impl fmt::Debug for DeviceBatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceBatches").field("upload", &self.upload).finish_non_exhaustive()
    }
}

impl DeviceBatches {
    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// If a stage failed.
    pub fn recv(&mut self) -> Result<Option<DeviceBatch>, FeedError> {
        let Some(UploadingBatch { views, sample_indices, bad_samples }) = self.feed.recv()? else {
            return Ok(None);
        };
        let views = views.into_iter().map(|view| self.upload.finish(view));
        let views = views.collect::<Result<_, _>>()?;
        Ok(Some(DeviceBatch { views, sample_indices, bad_samples }))
    }

    /// The work of each stage so far.
    #[must_use]
    pub fn meters(&self) -> Vec<StageReport> {
        self.feed.meters()
    }
}

#[cfg(test)]
mod tests {
    use moco_augment::{RgbImage, Square, Step};

    use super::*;

    fn samples() -> Vec<AugmentedSample> {
        let view = |rgb: [u8; 3], steps| {
            let image = RgbImage::new(1, 1, rgb.to_vec()).unwrap();
            Square { image, steps }
        };
        let sample = |i: u8| AugmentedSample {
            sample_index: u64::from(i),
            views: vec![
                view([i, 0, 255], vec![]),
                view([100 + i, 51, 0], vec![Step::Blur { sigma: f64::from(i) }]),
            ],
            bad_samples: Vec::new(),
        };
        (0..3).map(sample).collect()
    }

    #[test]
    fn the_control_pairs_each_query_with_another_image() {
        let first_of_key = |pairing| -> Vec<u8> {
            U8Batch::collate(&samples(), pairing, FinishOn::Cpu).views[1]
                .pixels
                .chunks(3)
                .map(|rgb| rgb[0])
                .collect()
        };
        assert_eq!(first_of_key(Pairing::SameImage), [100, 101, 102]);
        assert_eq!(first_of_key(Pairing::Shuffled), [101, 102, 100]);
        // Steps for a GPU travel with their view.
        let batch = U8Batch::collate(&samples(), Pairing::Shuffled, FinishOn::Gpu);
        let blur = |sigma| vec![ImageStep::Blur { sigma }];
        assert_eq!(batch.views[1].steps, [blur(1.0), blur(2.0), blur(0.0)]);
        assert_eq!(batch.views[0].steps, [vec![], vec![], vec![]]);
    }

    #[test]
    fn a_bad_image_has_the_view_of_the_next_good_one() {
        let first_of_query = |bad: &[usize]| -> Vec<u8> {
            let mut samples = samples();
            for at in bad {
                let sample_index = samples[*at].sample_index;
                let [path, reason] = ["x.jpg", "it is cut"].map(str::to_owned);
                samples[*at].bad_samples.push(BadSample { sample_index, path, reason });
            }
            let batch = U8Batch::collate(&samples, Pairing::SameImage, FinishOn::Cpu);
            assert_eq!((batch.bad_samples.len(), batch.sample_indices), (bad.len(), vec![0, 1, 2]));
            batch.views[0].pixels.chunks(3).map(|rgb| rgb[0]).collect()
        };
        for (bad, expected) in [
            (&[][..], [0, 1, 2]),
            (&[0], [1, 1, 2]),
            (&[2], [0, 1, 0]),
            (&[1, 2], [0, 0, 0]),
            (&[0, 1, 2], [0, 1, 2]),
        ] {
            assert_eq!(first_of_query(bad), expected, "{bad:?}");
        }
    }
}
