//! Alarms name the cause: each seeded fault is found in a run's own numbers, and a good run rings nothing. The long
//! form has five seeds; full runs are those of `examples/alarms.rs`.

use std::cell::RefCell;
use std::path::Path;
use std::sync::OnceLock;

use crate::faults::{FAULTS, N_TRAIN, SMALL, WITHIN, draw, listen, listen_to};
use candle_core::Tensor;
use moco_encoders::{Encoder, EncoderError, GradientSink, Mode, Saved};
use moco_ingest::Sampler;
use moco_params::ParamStore;
use moco_rng::Seed;
use moco_train::Components;
use tempfile::TempDir;

const N_SEEDS: u64 = if cfg!(feature = "long") { 5 } else { 1 };

/// The data set, drawn once.
fn data() -> &'static Path {
    static DATA: OnceLock<TempDir> = OnceLock::new();
    let folder = DATA.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        draw(folder.path()).unwrap();
        folder
    });
    folder.path()
}

#[test]
fn each_seeded_fault_is_named_within_200_steps() {
    for fault in &FAULTS {
        for seed in 0..N_SEEDS {
            let heard = listen_to(fault, SMALL, seed, data()).unwrap();
            let first = heard.findings.first().map(|finding| finding.alarm);
            assert_eq!(first, Some(fault.alarm), "{}, seed {seed}: {heard:?}", fault.name);
            assert!(heard.step <= WITHIN, "{}, seed {seed}: {heard:?}", fault.name);
        }
    }
}

#[test]
fn a_good_run_rings_nothing() {
    let steps = if cfg!(feature = "long") { 1000 } else { 120 };
    for seed in 0..N_SEEDS {
        let heard = listen(SMALL, &[], seed, data(), &|components| components, steps).unwrap();
        assert!(heard.findings.is_empty() && heard.error.is_none(), "seed {seed}: {heard:?}");
        assert_eq!(heard.step, steps);
    }
}

/// An encoder that finds its images damaged behind the upload: a pixel of the sixth image becomes NaN at the
/// fourth step.
struct Damaged {
    encoder: Box<dyn Encoder>,
    n_forwards: usize,
}

impl Encoder for Damaged {
    fn params(&self) -> &ParamStore {
        self.encoder.params()
    }

    fn params_mut(&mut self) -> &mut ParamStore {
        self.encoder.params_mut()
    }

    fn feature_dim(&self) -> usize {
        self.encoder.feature_dim()
    }

    fn forward(&mut self, images: &Tensor) -> Result<(Tensor, Saved), EncoderError> {
        self.n_forwards += 1;
        if self.n_forwards == 4 {
            // Channels last in memory: a view that writes where the batch is.
            let pixels = images.permute((0, 2, 3, 1)).unwrap();
            let nan = (pixels.narrow(0, 0, 1).unwrap().ones_like().unwrap() * f64::NAN).unwrap();
            pixels.slice_set(&nan, 0, 5).unwrap();
        }
        self.encoder.forward(images)
    }

    fn features(&mut self, images: &Tensor, mode: Mode) -> Result<Tensor, EncoderError> {
        self.encoder.features(images, mode)
    }

    fn backward(
        &self,
        saved: Saved,
        features: &Tensor,
        sink: &mut GradientSink<'_>,
    ) -> Result<(), EncoderError> {
        self.encoder.backward(saved, features, sink)
    }

    fn fork(&self) -> Result<Box<dyn Encoder>, EncoderError> {
        self.encoder.fork()
    }
}

#[test]
fn a_pixel_that_is_not_a_number_is_named_by_its_image() {
    for seed in 0..N_SEEDS {
        let expected = RefCell::new(String::new());
        let spoil = |components: Components| {
            // The fourth batch of 32 images begins at position 96.
            let order = Sampler::new(Seed(seed), N_TRAIN.into(), 32).unwrap();
            let sample_index = order.slot(96 + 5).sample_index;
            let image = components.sources.train.read(sample_index).unwrap().key;
            *expected.borrow_mut() = format!(
                "image {image}: view 1 of sample {sample_index} holds NaN or infinite pixels at step 3; no weight \
                 was updated. hint: look at this image and at what the augmentation makes of it"
            );
            let encoder = Box::new(Damaged { encoder: components.encoder, n_forwards: 0 });
            Components { encoder, ..components }
        };
        let heard = listen(SMALL, &[], seed, data(), &spoil, WITHIN).unwrap();
        assert_eq!(heard.error, Some(expected.take()));
    }
}
