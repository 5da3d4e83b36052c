//! From an encoded sample to the views of one image.

use moco_augment::{Augmentation, Exif, RgbImage, Square};
use moco_ingest::{BadSample, EncodedSample, Payload};
use moco_rng::{At, Purpose, Seed, Stream};

use crate::error::FeedError;
use crate::plan::FinishOn;

/// The views of one image, on the host: two in training, one in an evaluation.
#[derive(Debug)]
pub(crate) struct AugmentedSample {
    pub(crate) sample_index: u64,
    /// The query's first. What a GPU is to finish is still to be done.
    pub(crate) views: Vec<Square>,
    /// The samples that this one takes the place of; in an evaluation itself, where its view is black.
    pub(crate) bad_samples: Vec<BadSample>,
}

impl AugmentedSample {
    /// Whether it could not be used itself, so that its views stand for nothing.
    pub(crate) fn is_bad(&self) -> bool {
        self.bad_samples.iter().any(|bad| bad.sample_index == self.sample_index)
    }
}

/// The randomness of the two views of an image in an epoch, the query's first.
#[must_use]
pub fn view_streams(seed: Seed, epoch: u32, sample_index: u64) -> [Stream; 2] {
    [0, 1].map(|view| seed.stream(Purpose::Augment, At { epoch, index: sample_index, view }))
}

/// Decodes an image, turned as its orientation tag says if that is wanted.
///
/// # Errors
/// If it cannot be decoded; the error names it.
pub fn decode(sample: EncodedSample, exif: Exif) -> Result<RgbImage, FeedError> {
    let key = sample.key;
    let decoded = match sample.payload {
        Payload::Encoded(bytes) => RgbImage::decode_as(&bytes, exif),
        Payload::Rgb { width, height, pixels } => RgbImage::new(width, height, pixels),
    };
    decoded.map_err(|source| FeedError::Image { key: key.to_string(), source })
}

/// The training views of a sample, one for each stream; those for a CPU are finished.
pub(crate) fn training_views(
    sample: EncodedSample,
    augmentation: &dyn Augmentation,
    streams: Vec<Stream>,
    exif: Exif,
    finish_on: FinishOn,
) -> Result<Vec<Square>, FeedError> {
    let key = sample.key.to_string();
    // An augmentation decodes only what its views show, of the picture as it lies in the file.
    let views = match (&sample.payload, exif, finish_on) {
        (Payload::Encoded(file), Exif::Ignore, FinishOn::Cpu) => {
            augmentation.views(file, streams).map(|views| views.into_iter().map(finished).collect())
        }
        (Payload::Encoded(file), Exif::Ignore, FinishOn::Gpu) => {
            augmentation.squares(file, streams)
        }
        _ => {
            let image = decode(sample, exif)?;
            let view = |stream| match finish_on {
                FinishOn::Cpu => augmentation.view(&image, stream).map(finished),
                FinishOn::Gpu => augmentation.square(&image, stream),
            };
            streams.into_iter().map(view).collect()
        }
    };
    views.map_err(|source| FeedError::Image { key, source })
}

/// The single view of a sample for an evaluation, finished.
pub(crate) fn evaluation_view(
    sample: EncodedSample,
    augmentation: &dyn Augmentation,
    exif: Exif,
) -> Result<Square, FeedError> {
    let (key, sample_index) = (sample.key.to_string(), sample.sample_index);
    let image = decode(sample, exif)?;
    // An evaluation's augmentation draws nothing.
    let stream = Seed(0).stream(Purpose::Augment, At::index(sample_index));
    let view = augmentation.view(&image, stream);
    Ok(finished(view.map_err(|source| FeedError::Image { key, source })?))
}

/// A view that nothing is left to do to.
fn finished(image: RgbImage) -> Square {
    Square { image, steps: Vec::new() }
}
