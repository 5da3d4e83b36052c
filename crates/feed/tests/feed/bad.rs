//! Images that cannot be used: the run ends, or others take their places.

use std::collections::BTreeSet;
use std::sync::Arc;

use moco_augment::RgbImage;
use moco_feed::{DeviceBatch, FeedError, Selection, view_streams};
use moco_ingest::{OnBadSample, Sampler, Source};

use crate::common::{
    BATCH_SIZE, Flaw, Images, SEED, SKIP, open, pixels, plain, recipe, some_flaws, stages,
    view_pixels,
};

const N: u64 = 100;
const N_BATCHES: usize = 50;

fn batches(images: &Images, sampler: &Sampler, on_bad_sample: OnBadSample) -> Vec<DeviceBatch> {
    let mut feed = open(images, sampler, 0, 2, on_bad_sample);
    (0..N_BATCHES).map(|_| feed.recv().unwrap().unwrap()).collect()
}

fn failure(flaw: fn(u64) -> Flaw, on_bad_sample: OnBadSample) -> FeedError {
    let mut feed = open(&Images { n: N, flaw }, &plain(N), 0, 2, on_bad_sample);
    let failure = (0..N_BATCHES).find_map(|_| feed.recv().err());
    failure.unwrap()
}

#[test]
fn the_first_bad_sample_ends_the_run_under_fail() {
    for (flaw, expected) in [
        (
            (|i| if i == 42 { Flaw::CutJpeg } else { Flaw::None }) as fn(u64) -> Flaw,
            "image train-0.tar/000042: JPEG image is truncated",
        ),
        (
            |i| if i == 42 { Flaw::NoImage } else { Flaw::None },
            "image train-0.tar/000042: image is no JPEG, PNG, WebP, BMP, TIFF or GIF",
        ),
        (
            |i| if i == 42 { Flaw::Empty } else { Flaw::None },
            "shard train-0.tar holds no byte of the image",
        ),
    ] {
        let message = failure(flaw, OnBadSample::Fail).to_string();
        assert!(message.starts_with("stage `decode-"), "{message}");
        assert!(message.contains(expected) && message.contains("000042"), "{message}");
    }
}

#[test]
fn what_is_wrong_with_a_shard_ends_the_run_under_skip_too() {
    let message = failure(|i| if i == 42 { Flaw::NoShard } else { Flaw::None }, SKIP).to_string();
    assert!(message.starts_with("stage `read-"), "{message}");
    assert!(message.contains("shard train-0.tar is missing"), "{message}");
    // Also where it is met in the search for a substitute.
    let flaw = |i| if i == 42 { Flaw::Empty } else { Flaw::NoShard };
    let sampler = plain(N);
    let at_42 = sampler.slots_from(0).find(|slot| slot.sample_index == 42).unwrap();
    let feed = open(&Images { n: N, flaw }, &sampler, at_42.position, 1, SKIP).recv();
    assert!(feed.unwrap_err().to_string().contains("shard train-0.tar is missing"));
}

#[test]
fn without_anything_sound_there_is_no_substitute() {
    let message = failure(|_| Flaw::CutJpeg, SKIP).to_string();
    let expected = "no substitute for a bad sample at position ";
    assert!(message.contains(expected) && message.contains("16 draws gave "), "{message}");
    assert!(message.contains("JPEG image is truncated"), "{message}");
}

#[test]
fn sound_samples_keep_their_places_and_substitutes_are_drawn_for_the_others() {
    let images = Images { n: N, flaw: some_flaws };
    let sampler = plain(N);
    let sound = batches(&Images { n: N, flaw: |_| Flaw::None }, &sampler, OnBadSample::Fail);
    let mut slots = sampler.slots_from(0);
    let mut substitutes = BTreeSet::new();
    let mut n_met = 0;
    for (batch, sound) in batches(&images, &sampler, SKIP).iter().zip(&sound) {
        let reported: Vec<u64> = batch.bad_samples.iter().map(|bad| bad.sample_index).collect();
        let slots: Vec<_> = slots.by_ref().take(BATCH_SIZE).collect();
        let mut met = 0;
        for (place, slot) in slots.iter().enumerate() {
            let side = 12 * place..12 * (place + 1);
            let given = batch.sample_indices[place];
            let views = [0, 1].map(|view| view_pixels(batch, view)[side.clone()].to_vec());
            if some_flaws(slot.sample_index) == Flaw::None {
                assert_eq!(given, slot.sample_index);
                assert_eq!(views, [0, 1].map(|v| view_pixels(sound, v)[side.clone()].to_vec()));
                continue;
            }
            met += 1;
            assert!(reported.contains(&slot.sample_index), "{reported:?}");
            assert_eq!(some_flaws(given), Flaw::None);
            substitutes.insert(given);
            if !given.is_multiple_of(3) {
                let image = RgbImage::new(3, 3, pixels(given)).unwrap();
                let streams = view_streams(SEED, slot.epoch, slot.sample_index);
                let own = streams.map(|s| recipe().view(&image, s).unwrap().into_pixels());
                assert_eq!(views, own);
            }
        }
        assert!(reported.len() >= met, "{reported:?}");
        assert!(reported.iter().all(|index| some_flaws(*index) != Flaw::None), "{reported:?}");
        n_met += met;
    }
    assert!(n_met >= 2 * 15 - 8, "15 of 100 are bad, and each is met in most epochs: {n_met}");
    assert!(substitutes.len() * 3 >= n_met * 2, "{substitutes:?} for {n_met}");
}

#[test]
fn a_substitute_comes_from_the_window_whose_shards_are_open() {
    let sampler = Sampler::windowed(SEED, &[5; 20], 2, BATCH_SIZE as u64).unwrap();
    let images = Images { n: N, flaw: |i| if i % 5 == 0 { Flaw::CutJpeg } else { Flaw::None } };
    let mut slots = sampler.slots_from(0);
    for batch in batches(&images, &sampler, SKIP) {
        for given in &batch.sample_indices {
            let slot = slots.next().unwrap();
            let visit = sampler.visits_from(slot.position).next().unwrap();
            assert!(visit.first_samples.contains(&(given / 5 * 5)), "{given} of {visit:?}");
        }
    }
}

#[test]
fn a_window_of_only_bad_samples_is_left() {
    let sampler = Sampler::windowed(SEED, &[1; 100], 1, BATCH_SIZE as u64).unwrap();
    let images = Images { n: N, flaw: |i| if i < 10 { Flaw::NoImage } else { Flaw::None } };
    let batches = batches(&images, &sampler, SKIP);
    let given: Vec<u64> = batches.iter().flat_map(|batch| batch.sample_indices.clone()).collect();
    assert!(given.len() == 200 && given.iter().all(|index| *index >= 10), "{given:?}");
    let at_bad = given.iter().zip(sampler.slots_from(0)).filter(|(_, slot)| slot.sample_index < 10);
    let substitutes: BTreeSet<u64> = at_bad.map(|(given, _)| *given).collect();
    assert!(substitutes.len() > 10, "drawn again for each of 20 places: {substitutes:?}");
}

#[test]
fn each_skip_is_reported_with_its_reason() {
    let images = Images { n: N, flaw: some_flaws };
    let batches = batches(&images, &plain(N), SKIP);
    let reported: Vec<_> = batches.iter().flat_map(|batch| &batch.bad_samples).collect();
    assert!(!reported.is_empty());
    for bad in &reported {
        let expected = match some_flaws(bad.sample_index) {
            Flaw::CutJpeg => "JPEG image is truncated",
            Flaw::NoImage => "image is no JPEG, PNG, WebP, BMP, TIFF or GIF",
            _ => "it has no bytes",
        };
        assert_eq!(bad.path, format!("train-0.tar/{:06}", bad.sample_index));
        assert!(bad.reason.starts_with(expected), "{bad:?}");
    }
}

#[test]
fn an_evaluation_reports_each_skipped_sample_once_and_keeps_the_rows_of_the_others() {
    let images = Images { n: N, flaw: |i| if i >= 98 { Flaw::Empty } else { some_flaws(i) } };
    let source: Arc<dyn Source> = Arc::new(images);
    let read = |on_bad_sample| {
        let all = Selection::all(source.as_ref());
        let mut feed = stages(2).evaluation(&source, recipe(), all, 8, on_bad_sample).unwrap();
        let mut batches = Vec::new();
        while let Some(batch) = feed.recv()? {
            batches.push(batch);
        }
        Ok::<_, FeedError>(batches)
    };
    let message = read(OnBadSample::Fail).unwrap_err().to_string();
    assert!(message.contains("image train-0.tar/000003: JPEG image is truncated"), "{message}");

    let batches = read(SKIP).unwrap();
    let rows = batches.iter().map(|batch| batch.sample_indices.len()).sum::<usize>();
    assert_eq!((batches.len(), rows), (13, 104), "filled up to whole batches");
    let is_bad = |i: &u64| *i >= 98 || some_flaws(*i) != Flaw::None;
    let reported: Vec<u64> =
        batches.iter().flat_map(|batch| &batch.bad_samples).map(|bad| bad.sample_index).collect();
    assert_eq!(reported, (0..N).filter(is_bad).collect::<Vec<_>>());
    for batch in &batches {
        let pixels = view_pixels(batch, 0);
        let rows = || pixels.chunks(12).zip(&batch.sample_indices);
        let is_black = |row: &[u8]| row.iter().all(|value| *value == 0);
        for (row, index) in rows() {
            // The statistics of a batch are those of its good images.
            let of_good = || rows().any(|(other, index)| !is_bad(index) && other == row);
            // The repetitions of a bad last image are black.
            let is_last = batch.sample_indices.contains(&(N - 1));
            let is_fine = if is_bad(index) { of_good() || is_last } else { !is_black(row) };
            assert!(is_fine, "{index}: {row:?}");
        }
    }
}
