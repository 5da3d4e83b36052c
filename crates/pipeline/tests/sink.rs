//! A sink works off all it was sent, waits when full, and repeats its first failure.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use moco_pipeline::{PipelineError, Sink, StageError};

/// Sends until the sink refuses and returns the refusal.
fn send_until_refused(sink: &Sink<u64>) -> PipelineError {
    let mut item = 0;
    loop {
        match sink.send(item) {
            Ok(()) => item += 1,
            Err(refusal) => return refusal,
        }
    }
}

fn failing_at(item: u64) -> impl FnMut(u64) -> Result<(), StageError> + Send + 'static {
    move |got| if got == item { Err(format!("no space for {got}").into()) } else { Ok(()) }
}

#[test]
fn everything_sent_is_worked_off_in_order() {
    for capacity in [0, 1, 16] {
        let written = Arc::new(Mutex::new(Vec::new()));
        let target = Arc::clone(&written);
        let sink = Sink::spawn("metrics", capacity, move |item: u64| {
            target.lock().unwrap().push(item);
            Ok(())
        })
        .unwrap();
        for item in 0..100 {
            sink.send(item).unwrap();
        }
        sink.finish().unwrap();
        assert_eq!(*written.lock().unwrap(), (0..100).collect::<Vec<_>>());
    }
}

#[test]
fn flush_waits_for_everything_sent_and_the_sink_goes_on() {
    for capacity in [0, 1, 16] {
        let n_done = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&n_done);
        let sink = Sink::spawn("metrics", capacity, move |_: u64| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
        .unwrap();
        for round in 1..=20 {
            (0..10).for_each(|item| sink.send(item).unwrap());
            sink.flush().unwrap();
            assert_eq!(n_done.load(Ordering::SeqCst), 10 * round, "capacity {capacity}");
        }
        sink.finish().unwrap();
    }
}

#[test]
fn flush_tells_the_failure_also_where_it_waits_behind_the_failing_item() {
    for _ in 0..50 {
        let sink = Sink::spawn("metrics", 16, failing_at(3)).unwrap();
        for item in 0..6 {
            // Items after the failing one may be refused already.
            drop(sink.send(item));
        }
        let failure = sink.flush().unwrap_err().to_string();
        assert_eq!(failure, "stage `metrics`: no space for 3");
        assert_eq!(sink.flush().unwrap_err().to_string(), failure);
    }
}

#[test]
fn dropping_it_works_off_the_rest() {
    let n_done = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&n_done);
    let sink = Sink::spawn("metrics", 50, move |_: u64| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(())
    })
    .unwrap();
    for item in 0..50 {
        sink.send(item).unwrap();
    }
    drop(sink);
    assert_eq!((n_done.load(Ordering::SeqCst), Arc::strong_count(&n_done)), (50, 1));
}

/// The thread holds each item until the sender has filled the channel after that, and fails if more fit.
#[test]
fn a_full_sink_makes_the_sender_wait() {
    const N_ITEMS: u64 = 200;
    for capacity in [0, 1, 4] {
        let n_sent = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&n_sent);
        let sink = Sink::spawn("metrics", capacity, move |item: u64| {
            let n_fitting = item + 1 + capacity as u64;
            while counter.load(Ordering::SeqCst) < n_fitting.min(N_ITEMS) {
                std::thread::yield_now();
            }
            let n_sent = counter.load(Ordering::SeqCst);
            if n_sent > n_fitting { Err(format!("{n_sent} sent at {item}").into()) } else { Ok(()) }
        })
        .unwrap();
        for item in 0..N_ITEMS {
            sink.send(item).unwrap();
            n_sent.store(item + 1, Ordering::SeqCst);
        }
        sink.finish().unwrap();
    }
}

#[test]
fn the_first_failure_is_the_answer_of_send_and_finish() {
    let sink = Sink::spawn("checkpoint", 2, failing_at(5)).unwrap();
    let text = "stage `checkpoint`: no space for 5";
    assert_eq!(send_until_refused(&sink).to_string(), text);
    assert_eq!(sink.send(6).unwrap_err().to_string(), text);
    assert_eq!(sink.finish().unwrap_err().to_string(), text);
}

#[test]
fn a_failure_at_the_last_item_is_reported_by_finish() {
    let sink = Sink::spawn("checkpoint", 10, failing_at(9)).unwrap();
    for item in 0..10 {
        sink.send(item).unwrap();
    }
    assert_eq!(sink.finish().unwrap_err().to_string(), "stage `checkpoint`: no space for 9");
}

#[test]
fn a_panic_is_a_failure_with_its_message() {
    let work = |item: u64| if item == 3 { panic!("item {item} is broken") } else { Ok(()) };
    let sink = Sink::spawn("metrics", 0, work).unwrap();
    let text = "stage `metrics` panicked: item 3 is broken";
    assert_eq!(send_until_refused(&sink).to_string(), text);
    assert_eq!(sink.finish().unwrap_err().to_string(), text);
}

#[test]
fn it_counts_what_it_has_done() {
    let sink = Sink::spawn("metrics", 1, |_: u64| Ok(())).unwrap();
    for item in 0..7 {
        sink.send(item).unwrap();
    }
    while sink.meter().items < 7 {
        std::thread::yield_now();
    }
    let report = sink.meter();
    assert_eq!((report.stage.as_str(), report.items), ("metrics", 7));
    assert!(
        report.busy_secs > 0.0 && report.waiting_in_secs > 0.0 && report.waiting_out_secs == 0.0
    );
    sink.finish().unwrap();
}
