//! A slow consumer bounds the memory, and one that leaves ends every thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use moco_pipeline::{Feed, Pipeline, PipelineError};

/// An infinite counter through a map with `n_lanes` workers; `made` counts the items of the source.
fn build(
    n_lanes: usize,
    capacities: [usize; 2],
    made: &Arc<AtomicU64>,
) -> Result<Feed<u64>, PipelineError> {
    let counter = Arc::clone(made);
    let items = std::iter::repeat_with(move || Ok(counter.fetch_add(1, Ordering::SeqCst)));
    let mut pipeline = Pipeline::new();
    let lanes = pipeline.source("make", n_lanes, capacities[0], items)?;
    let lanes = pipeline.map("pass", lanes, capacities[1], |_| Ok)?;
    Ok(pipeline.feed(lanes))
}

/// lanes × (both capacities and the item in the worker's hand), and the one in the source's hand.
fn bound(n_lanes: usize, capacities: [usize; 2]) -> u64 {
    (n_lanes * (capacities[0] + 1 + capacities[1]) + 1) as u64
}

/// Waits until `expected` items are counted; that there are no more, the callers check.
fn wait_for(counter: &AtomicU64, expected: u64) {
    while counter.load(Ordering::SeqCst) < expected {
        std::thread::yield_now();
    }
}

const SHAPES: [(usize, [usize; 2]); 5] =
    [(1, [0, 0]), (1, [3, 2]), (2, [1, 1]), (3, [2, 5]), (8, [0, 4])];

#[test]
fn the_source_is_ahead_of_a_slow_consumer_by_the_capacities_at_most() {
    for (n_lanes, capacities) in SHAPES {
        let made = Arc::new(AtomicU64::new(0));
        let mut feed = build(n_lanes, capacities, &made).unwrap();
        for n_received in 0..50 {
            let limit = bound(n_lanes, capacities) + n_received;
            wait_for(&made, limit);
            assert_eq!(made.load(Ordering::SeqCst), limit, "{n_lanes} lanes of {capacities:?}");
            assert_eq!(feed.recv().unwrap(), Some(n_received));
        }
    }
}

#[test]
fn dropping_the_consumer_ends_an_infinite_source_at_once() {
    for (n_lanes, capacities) in SHAPES {
        let made = Arc::new(AtomicU64::new(0));
        let feed = build(n_lanes, capacities, &made).unwrap();
        wait_for(&made, bound(n_lanes, capacities));
        drop(feed);
        let name = format!("{n_lanes} lanes of {capacities:?}");
        assert_eq!(made.load(Ordering::SeqCst), bound(n_lanes, capacities), "{name}");
        assert_eq!(Arc::strong_count(&made), 1, "{name}: a thread outlived the consumer");
    }
}

#[test]
fn dropping_the_consumer_early_joins_every_thread() {
    for n_received in 0..20 {
        let made = Arc::new(AtomicU64::new(0));
        let mut feed = build(3, [2, 2], &made).unwrap();
        for item in 0..n_received {
            assert_eq!(feed.recv().unwrap(), Some(item));
        }
        drop(feed);
        assert!(made.load(Ordering::SeqCst) <= bound(3, [2, 2]) + n_received);
        assert_eq!(Arc::strong_count(&made), 1, "after {n_received} items");
    }
}

#[test]
fn a_pipeline_that_is_never_fed_lets_its_threads_go() {
    let made = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&made);
    let mut pipeline = Pipeline::new();
    let items = std::iter::repeat_with(move || Ok(counter.fetch_add(1, Ordering::SeqCst)));
    drop((pipeline.source("make", 2, 1, items).unwrap(), pipeline));
    while Arc::strong_count(&made) > 1 {
        std::thread::yield_now();
    }
    assert!(made.load(Ordering::SeqCst) <= 3, "made {}", made.load(Ordering::SeqCst));
}

/// Opens a gate when it is dropped.
struct Opens(Arc<AtomicBool>);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The source is in the middle of its second item when the consumer goes. The worker with the first one
/// then leaves, which lets the source finish; the idle workers would take five more, yet none is begun.
#[test]
fn no_stage_begins_an_item_after_the_consumer_has_gone() {
    let (made, worked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let gate = Arc::new(AtomicBool::new(false));
    let (n_made, opened) = (Arc::clone(&made), Arc::clone(&gate));
    let items = std::iter::repeat_with(move || {
        let item = n_made.fetch_add(1, Ordering::SeqCst);
        while item == 1 && !opened.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        Ok(item)
    });
    let work = |worker_idx| {
        let opens = (worker_idx == 0).then(|| Opens(Arc::clone(&gate)));
        let n_worked = Arc::clone(&worked);
        move |item| {
            let _opens = &opens;
            n_worked.fetch_add(1, Ordering::SeqCst);
            Ok(item)
        }
    };
    let mut pipeline = Pipeline::new();
    let lanes = pipeline.source("make", 6, 1, items).unwrap();
    let lanes = pipeline.map("pass", lanes, 0, work).unwrap();
    let feed = pipeline.feed(lanes);
    wait_for(&worked, 1);
    wait_for(&made, 2);
    drop(feed);
    assert_eq!((made.load(Ordering::SeqCst), worked.load(Ordering::SeqCst)), (2, 1));
}
