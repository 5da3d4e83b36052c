//! The failure table of the crate's documentation, line by line.
#![expect(clippy::panic, clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use moco_pipeline::{Feed, Pipeline, PipelineError, StageError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Source,
    Reader,
    Decoder,
    Batcher,
    Uploader,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Error,
    Panic,
}

#[derive(Debug, thiserror::Error)]
#[error("item {0} is broken")]
struct Broken(u64);

/// Which stage goes wrong, at which item and how.
#[derive(Debug, Clone, Copy)]
struct Fault {
    stage: Stage,
    item: u64,
    how: How,
}

impl Fault {
    fn check(self, stage: Stage, item: u64) -> Result<u64, StageError> {
        match self.how {
            _ if (self.stage, self.item) != (stage, item) => Ok(item),
            How::Error => Err(Box::new(Broken(item))),
            How::Panic => panic!("item {item} is broken"),
        }
    }
}

const BATCH_SIZE: u64 = 3;

/// An infinite stream through every kind of stage; `alive` is held by each of their functions.
fn build(fault: Fault, n_workers: usize, alive: &Arc<()>) -> Result<Feed<u64>, PipelineError> {
    let mut pipeline = Pipeline::new();
    let held = Arc::clone(alive);
    let items = (0..).map(move |item| {
        let _held = &held;
        fault.check(Stage::Source, item)
    });
    let worker = |stage| {
        let alive = Arc::clone(alive);
        move |_| {
            let held = Arc::clone(&alive);
            move |item| {
                let _held = &held;
                fault.check(stage, item)
            }
        }
    };
    let lanes = pipeline.source("sample", n_workers, 2, items)?;
    let lanes = pipeline.map("read", lanes, 2, worker(Stage::Reader))?;
    let lanes = pipeline.deal("deal", lanes, n_workers + 1, 2)?;
    let lanes = pipeline.map("decode", lanes, 2, worker(Stage::Decoder))?;
    let make = worker(Stage::Batcher)(0);
    let whole = move |batch: Vec<u64>| make(batch.first().map_or(0, |first| first / BATCH_SIZE));
    let lanes = pipeline.batch("batch", lanes, 3, 1, whole)?;
    let lanes = pipeline.map("upload", lanes, 1, worker(Stage::Uploader))?;
    Ok(pipeline.feed(lanes))
}

/// Receives to the failure; returns the items before it and its text, asked for three times.
fn run_into_failure(feed: &mut Feed<u64>) -> (Vec<u64>, [String; 3]) {
    let mut items = Vec::new();
    let first = loop {
        match feed.recv() {
            Ok(Some(item)) => items.push(item),
            Ok(None) => panic!("the stream ended after {items:?} as if nothing had happened"),
            Err(error) => break error,
        }
    };
    let again = |feed: &mut Feed<u64>| feed.recv().unwrap_err().to_string();
    (items, [first.to_string(), again(feed), again(feed)])
}

#[test]
fn a_failure_or_panic_in_any_stage_arrives_with_its_name_after_the_items_before_it() {
    // (stage, item it fails at, whole batches before that, thread with 2 readers and 3 decoders)
    let cases = [
        (Stage::Source, 0, 0, "sample"),
        (Stage::Source, 13, 4, "sample"),
        (Stage::Reader, 13, 4, "read-1"),
        (Stage::Reader, 12, 4, "read-0"),
        (Stage::Decoder, 13, 4, "decode-1"),
        (Stage::Decoder, 2, 0, "decode-2"),
        (Stage::Batcher, 5, 5, "batch"),
        (Stage::Uploader, 7, 7, "upload-0"),
    ];
    for (stage, item, n_batches, thread) in cases {
        for (how, text) in [
            (How::Error, format!("stage `{thread}`: item {item} is broken")),
            (How::Panic, format!("stage `{thread}` panicked: item {item} is broken")),
        ] {
            let (fault, alive) = (Fault { stage, item, how }, Arc::new(()));
            let mut feed = build(fault, 2, &alive).unwrap();
            let (items, texts) = run_into_failure(&mut feed);
            assert_eq!(items, (0..n_batches).collect::<Vec<_>>(), "{fault:?}");
            assert_eq!(texts, [text.clone(), text.clone(), text], "{fault:?}");
            assert_eq!(Arc::strong_count(&alive), 1, "{fault:?}: a thread outlived the failure");
        }
    }
}

#[test]
fn the_cause_keeps_its_type() {
    let fault = Fault { stage: Stage::Decoder, item: 4, how: How::Error };
    let mut feed = build(fault, 1, &Arc::new(())).unwrap();
    assert_eq!(feed.recv().unwrap(), Some(0));
    for _ in 0..2 {
        let error = feed.recv().unwrap_err();
        let cause = error.source().and_then(|source| source.downcast_ref::<Broken>());
        assert_eq!(cause.map(|broken| broken.0), Some(4));
    }
}

#[test]
fn the_first_failure_in_item_order_wins_even_if_it_happens_last() {
    let mut pipeline = Pipeline::new();
    let lanes = pipeline.source("read", 2, 4, (0..).map(Ok)).unwrap();
    let later_failed = Arc::new(AtomicBool::new(false));
    let lanes = pipeline
        .map("decode", lanes, 4, |_| {
            let later_failed = Arc::clone(&later_failed);
            move |item: u64| match item {
                1 => {
                    while !later_failed.load(Ordering::Acquire) {
                        std::thread::yield_now();
                    }
                    Err(Box::new(Broken(1)) as StageError)
                }
                2 => {
                    later_failed.store(true, Ordering::Release);
                    Err(Box::new(Broken(2)))
                }
                _ => Ok(item),
            }
        })
        .unwrap();
    let (items, [text, ..]) = run_into_failure(&mut pipeline.feed(lanes));
    assert_eq!((items, text.as_str()), (vec![0], "stage `decode-1`: item 1 is broken"));
}

#[test]
fn a_stage_whose_lanes_were_dropped_is_no_clean_end() {
    let mut pipeline = Pipeline::new();
    drop(pipeline.source("orphan", 1, 1, (0..).map(Ok::<u64, StageError>)).unwrap());
    let lanes = pipeline.source("read", 1, 1, (0..2).map(Ok::<u64, StageError>)).unwrap();
    let (items, [text, ..]) = run_into_failure(&mut pipeline.feed(lanes));
    assert_eq!(items, [0, 1]);
    assert_eq!(text, "stage `orphan` was cut off before its data ended");
}

#[test]
fn a_panic_while_a_function_is_dropped_is_no_clean_end() {
    struct PanicsOnDrop;
    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("flush failed");
        }
    }
    let mut pipeline = Pipeline::new();
    let lanes = pipeline.source("read", 1, 1, (0..2).map(Ok)).unwrap();
    let lanes = pipeline
        .map("write", lanes, 1, |_| {
            let guard = PanicsOnDrop;
            move |item: u64| {
                let _guard = &guard;
                Ok(item)
            }
        })
        .unwrap();
    let (items, [text, ..]) = run_into_failure(&mut pipeline.feed(lanes));
    assert_eq!((items, text.as_str()), (vec![0, 1], "stage `write-0` panicked: flush failed"));
}
