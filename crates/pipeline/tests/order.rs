//! The items and their order are the same for every number of workers and every capacity.

use moco_pipeline::{Feed, Pipeline, PipelineError};
use proptest::prelude::*;

/// The shape of a pipeline: readers, capacity between stages, decoders, batch size.
#[derive(Debug, Clone, Copy)]
struct Shape {
    n_readers: usize,
    capacity: usize,
    n_decoders: usize,
    batch_size: usize,
}

fn build(shape: Shape, n_items: u64) -> Result<Feed<Vec<u64>>, PipelineError> {
    let Shape { n_readers, capacity, n_decoders, batch_size } = shape;
    let mut pipeline = Pipeline::new();
    let keys = pipeline.source("sample", n_readers, capacity, (0..n_items).map(Ok))?;
    let bytes = pipeline.map("read", keys, capacity, |_| |key: u64| Ok(key + 1))?;
    let bytes = pipeline.deal("deal", bytes, n_decoders, capacity)?;
    let views = pipeline.map("decode", bytes, capacity, |_| |byte: u64| Ok(byte * byte))?;
    let batches = pipeline.batch("batch", views, batch_size, capacity, Ok)?;
    Ok(pipeline.feed(batches))
}

fn drain<T>(feed: &mut Feed<T>) -> Result<Vec<T>, PipelineError> {
    let mut items = Vec::new();
    while let Some(item) = feed.recv()? {
        items.push(item);
    }
    Ok(items)
}

fn expected(batch_size: usize, n_items: u64) -> Vec<Vec<u64>> {
    let squares: Vec<u64> = (1..=n_items).map(|n| n * n).collect();
    squares.chunks_exact(batch_size).map(<[u64]>::to_vec).collect()
}

#[test]
fn order_does_not_depend_on_the_number_of_workers() {
    for n_readers in [1, 2, 3, 8] {
        for n_decoders in [1, 2, 3, 8] {
            let shape = Shape { n_readers, capacity: 2, n_decoders, batch_size: 4 };
            let got = drain(&mut build(shape, 203).unwrap()).unwrap();
            assert_eq!(got, expected(4, 203), "{shape:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_shape_delivers_each_whole_batch_in_order(
        n_readers in 1_usize..6,
        capacity in 0_usize..4,
        n_decoders in 1_usize..6,
        batch_size in 1_usize..8,
        n_items in 0_u64..100,
    ) {
        let shape = Shape { n_readers, capacity, n_decoders, batch_size };
        let got = drain(&mut build(shape, n_items).unwrap()).unwrap();
        prop_assert_eq!(got, expected(batch_size, n_items));
    }
}

#[test]
fn the_end_stays_the_end() {
    let shape = Shape { n_readers: 2, capacity: 1, n_decoders: 3, batch_size: 5 };
    let mut feed = build(shape, 12).unwrap();
    assert_eq!(drain(&mut feed).unwrap().len(), 2);
    for _ in 0..3 {
        assert_eq!(feed.recv().unwrap(), None);
    }
}

#[test]
fn each_worker_gets_its_own_function() {
    let mut pipeline = Pipeline::new();
    let numbers = pipeline.source("read", 3, 1, (0..7).map(Ok)).unwrap();
    let calls = pipeline
        .map("work", numbers, 1, |worker_idx| {
            let mut n_calls = 0;
            move |_: u32| {
                n_calls += 1;
                let thread = std::thread::current().name().map(str::to_owned);
                Ok((worker_idx, n_calls, thread.unwrap_or_default()))
            }
        })
        .unwrap();
    let got = drain(&mut pipeline.feed(calls)).unwrap();
    let want: Vec<_> = (0..7).map(|s| (s % 3, s / 3 + 1, format!("work-{}", s % 3))).collect();
    assert_eq!(got, want);
}

#[test]
fn meters_count_the_items_of_each_stage() {
    let shape = Shape { n_readers: 2, capacity: 1, n_decoders: 3, batch_size: 5 };
    let mut feed = build(shape, 23).unwrap();
    drain(&mut feed).unwrap();
    let items: Vec<(String, u64)> =
        feed.meters().into_iter().map(|report| (report.stage, report.items)).collect();
    let want =
        [("sample", 23), ("read", 23), ("deal", 23), ("decode", 23), ("batch", 4), ("consumer", 4)];
    assert_eq!(items, want.map(|(stage, n)| (stage.to_owned(), n)));
    for report in feed.meters() {
        let waiting_in = report.waiting_in_secs > 0.0;
        assert_eq!(waiting_in, report.stage != "sample", "{report:?}");
        let waiting_out = report.waiting_out_secs > 0.0;
        assert_eq!(waiting_out, report.stage != "consumer", "{report:?}");
        assert_eq!(report.busy_secs > 0.0, report.stage != "deal", "{report:?}");
    }
}

#[test]
fn a_size_of_zero_is_refused() {
    let mut pipeline = Pipeline::new();
    let text = |error: PipelineError| error.to_string();
    let refused = pipeline.source("read", 0, 1, std::iter::repeat_with(|| Ok(1))).map_err(text);
    assert_eq!(
        refused.map(|_| ()),
        Err("stage `read`: expected a number of lanes of at least 1, got 0".to_owned())
    );
    let lanes = pipeline.source("read", 2, 1, std::iter::repeat_with(|| Ok(1))).unwrap();
    let refused = pipeline.batch("batch", lanes, 0, 1, Ok).map_err(text);
    assert_eq!(
        refused.map(|_| ()),
        Err("stage `batch`: expected a batch size of at least 1, got 0".to_owned())
    );
}
