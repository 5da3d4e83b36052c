//! How long each stage works and waits, and which stage holds the others up.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Serialize;

/// What a stage has done since it started, summed over its workers. The record of a log as well.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct StageReport {
    /// The stage's name, without a worker's number.
    pub stage: String,
    /// Items it has handed on.
    pub items: u64,
    /// Seconds in its own function.
    pub busy_secs: f64,
    /// Seconds waiting for input.
    pub waiting_in_secs: f64,
    /// Seconds waiting for room in its output.
    pub waiting_out_secs: f64,
}

impl StageReport {
    /// What the stage has done since `before`, an earlier report of the same stage.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            stage: self.stage.clone(),
            items: self.items - before.items,
            busy_secs: self.busy_secs - before.busy_secs,
            waiting_in_secs: self.waiting_in_secs - before.waiting_in_secs,
            waiting_out_secs: self.waiting_out_secs - before.waiting_out_secs,
        }
    }

    /// The share of a worker's time spent at work, in [0, 1]; 0 before anything was measured.
    #[must_use]
    pub fn busy_share(&self) -> f64 {
        let total = self.busy_secs + self.waiting_in_secs + self.waiting_out_secs;
        if total > 0.0 { self.busy_secs / total } else { 0.0 }
    }
}

/// The stage whose workers are busy for the highest share of their time: the one to speed up or to give
/// more workers. The earliest one wins a tie; none if no stage has worked yet.
#[must_use]
pub fn bottleneck(reports: &[StageReport]) -> Option<&StageReport> {
    let mut busiest: Option<&StageReport> = None;
    for report in reports {
        if report.busy_share() > busiest.map_or(0.0, StageReport::busy_share) {
            busiest = Some(report);
        }
    }
    busiest
}

/// Totals that the workers of a stage add to, each once per item and wait.
#[derive(Debug)]
pub(crate) struct Meter {
    stage: String,
    totals: Mutex<Totals>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    items: u64,
    busy: Duration,
    waiting_in: Duration,
    waiting_out: Duration,
}

/// The kind of activity in a span of time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Spent {
    Busy,
    WaitingIn,
    WaitingOut,
}

impl Meter {
    pub(crate) fn new(stage: &str) -> Self {
        Self { stage: stage.to_owned(), totals: Mutex::default() }
    }

    /// Runs `work` and adds the time it took.
    pub(crate) fn time<T>(&self, spent: Spent, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.add(spent, start.elapsed());
        result
    }

    pub(crate) fn add(&self, spent: Spent, duration: Duration) {
        self.update(|totals| match spent {
            Spent::Busy => totals.busy += duration,
            Spent::WaitingIn => totals.waiting_in += duration,
            Spent::WaitingOut => totals.waiting_out += duration,
        });
    }

    pub(crate) fn count_item(&self) {
        self.update(|totals| totals.items += 1);
    }

    pub(crate) fn report(&self) -> StageReport {
        let totals = self.update(|totals| *totals);
        StageReport {
            stage: self.stage.clone(),
            items: totals.items,
            busy_secs: totals.busy.as_secs_f64(),
            waiting_in_secs: totals.waiting_in.as_secs_f64(),
            waiting_out_secs: totals.waiting_out.as_secs_f64(),
        }
    }

    fn update<R>(&self, change: impl FnOnce(&mut Totals) -> R) -> R {
        // Totals are whole after every update, so a panic elsewhere cannot have left them half written.
        let mut totals = self.totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut totals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(stage: &str, busy: f64, waiting_in: f64, waiting_out: f64) -> StageReport {
        StageReport {
            stage: stage.to_owned(),
            items: 1,
            busy_secs: busy,
            waiting_in_secs: waiting_in,
            waiting_out_secs: waiting_out,
        }
    }

    #[test]
    fn the_bottleneck_is_the_busiest_per_worker_not_in_total() {
        let read = report("read", 1.0, 0.0, 9.0);
        // Four workers at half their time have more busy seconds than one worker at 90 percent.
        let decode = report("decode", 20.0, 10.0, 10.0);
        let train = report("train", 9.0, 1.0, 0.0);
        let idle = report("idle", 0.0, 0.0, 0.0);
        let name = |reports: &[StageReport]| bottleneck(reports).map(|r| r.stage.clone());
        assert_eq!(name(&[read.clone(), decode.clone(), train]).as_deref(), Some("train"));
        assert_eq!(name(&[read, decode.clone(), idle.clone()]).as_deref(), Some("decode"));
        assert_eq!(
            name(&[decode.clone(), report("twin", 2.0, 1.0, 1.0)]).as_deref(),
            Some("decode")
        );
        assert_eq!(name(&[idle]), None);
        assert_eq!(name(&[]), None);
    }

    #[test]
    fn a_meter_adds_up_what_it_is_told() {
        let meter = Meter::new("decode");
        meter.add(Spent::Busy, Duration::from_millis(1_500));
        meter.add(Spent::Busy, Duration::from_millis(500));
        meter.add(Spent::WaitingIn, Duration::from_secs(3));
        meter.add(Spent::WaitingOut, Duration::from_secs(4));
        assert_eq!(meter.time(Spent::Busy, || 7), 7);
        meter.count_item();
        let got = meter.report();
        assert!(got.busy_secs >= 2.0, "{got:?}");
        assert_eq!(
            got,
            StageReport { busy_secs: got.busy_secs, ..report("decode", 0.0, 3.0, 4.0) }
        );
    }
}
