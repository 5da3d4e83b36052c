//! The same batches for any number of workers and from any position on.

use moco_feed::{DeviceBatch, DeviceBatches};
use moco_ingest::BadSample;
use moco_ingest::Sampler;

use crate::common::{BATCH_SIZE, Flaw, Images, SEED, SKIP, open, plain, some_flaws, view_pixels};

/// Four epochs.
const N_BATCHES: usize = 200;
const WORKERS: [usize; 4] = [1, 2, 4, 8];
/// Batches that are compared after a kill: more than wait in the pipeline, and two windows. The long form
/// compares all that follow.
const AFTER_KILL: usize = if cfg!(feature = "long") { N_BATCHES } else { 16 };

/// The hash of a batch's sample indices and pixels, and what it had to skip.
type Digest = (blake3::Hash, Vec<BadSample>);

fn digests(mut feed: DeviceBatches, n: usize) -> Vec<Digest> {
    let digest = |batch: DeviceBatch| {
        let mut hasher = blake3::Hasher::new();
        for sample_index in &batch.sample_indices {
            hasher.update(&sample_index.to_le_bytes());
        }
        for view in 0..2 {
            hasher.update(&view_pixels(&batch, view));
        }
        (hasher.finalize(), batch.bad_samples)
    };
    (0..n).map(|_| digest(feed.recv().unwrap().unwrap())).collect()
}

fn images(flaw: fn(u64) -> Flaw) -> Images {
    Images { n: 203, flaw }
}

/// Seven windows an epoch, so that most kills are in the middle of one.
fn windowed() -> Sampler {
    let sizes: Vec<u64> = (0..22).map(|i| 5 + (i * 7) % 9).chain([6]).collect();
    let n = sizes.iter().sum::<u64>();
    assert!(n >= 200, "{n}");
    Sampler::windowed(SEED, &sizes, 3, BATCH_SIZE as u64).unwrap()
}

/// Kills a run after each batch and resumes it with another number of workers.
#[track_caller]
fn check(images: &Images, sampler: &Sampler) -> Vec<Digest> {
    let whole = digests(open(images, sampler, 0, 1, SKIP), N_BATCHES);
    for workers in WORKERS {
        let feed = open(images, sampler, 0, workers, SKIP);
        assert!(digests(feed, N_BATCHES) == whole, "{workers} workers");
    }
    for killed_after in 0..N_BATCHES {
        let workers = WORKERS[killed_after % WORKERS.len()];
        let position = (killed_after * BATCH_SIZE) as u64;
        let feed = open(images, sampler, position, workers, SKIP);
        let expected = &whole[killed_after..N_BATCHES.min(killed_after + AFTER_KILL)];
        let got = digests(feed, expected.len());
        assert!(got == expected, "{workers} workers after batch {killed_after}");
    }
    let mut hashes: Vec<[u8; 32]> = whole.iter().map(|(hash, _)| *hash.as_bytes()).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), N_BATCHES, "no batch comes twice");
    whole
}

#[test]
fn two_hundred_batches_do_not_depend_on_workers_or_kills() {
    let sound = images(|_| Flaw::None);
    let plain = check(&sound, &plain(sound.n));
    let windowed = check(&sound, &windowed());
    assert!(plain != windowed);
    assert!(plain.iter().chain(&windowed).all(|(_, bad_samples)| bad_samples.is_empty()));
}

#[test]
fn neither_do_they_with_bad_samples() {
    let flawed = images(some_flaws);
    for sampler in [plain(flawed.n), windowed()] {
        let whole = check(&flawed, &sampler);
        let n_bad: usize = whole.iter().map(|(_, bad_samples)| bad_samples.len()).sum();
        let slots = sampler.slots_from(0).take(N_BATCHES * BATCH_SIZE);
        let met = slots.filter(|slot| some_flaws(slot.sample_index) != Flaw::None).count();
        // Some substitutes are bad too.
        assert!(met > 80 && (met + 1..met * 3 / 2).contains(&n_bad), "{met} met, {n_bad} skipped");
    }
}
