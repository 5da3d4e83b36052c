//! Images per second and the time that is left, from times that the caller reads off its clock.

use std::collections::VecDeque;
use std::time::Duration;

/// Images per second, over the last window and since the start.
///
/// Times count from the start of the process or any other fixed point and never go back.
#[derive(Debug, Clone)]
pub struct Throughput {
    window: Duration,
    start: Duration,
    n_images: u64,
    /// Time and total at each record, from the last one at or before the window's start onward.
    history: VecDeque<(Duration, u64)>,
}

impl Throughput {
    /// Starts to measure at `now`.
    #[must_use]
    pub fn new(window: Duration, now: Duration) -> Self {
        Self { window, start: now, n_images: 0, history: VecDeque::from([(now, 0)]) }
    }

    /// Adds images that were finished at `now`.
    pub fn record(&mut self, now: Duration, n_images: u64) {
        self.n_images += n_images;
        self.history.push_back((now, self.n_images));
        let begin = now.saturating_sub(self.window);
        while self.history.get(1).is_some_and(|(time, _)| *time <= begin) {
            self.history.pop_front();
        }
    }

    /// Images per second over the last window, or since the start while that is shorter. It falls while
    /// nothing is finished.
    #[must_use]
    pub fn recent(&self, now: Duration) -> Option<f64> {
        let begin = now.saturating_sub(self.window);
        // `record` drops what is older, so that few of them are looked at.
        let before = self.history.iter().take_while(|(time, _)| *time <= begin).last();
        let (time, n_before) = before.or(self.history.front())?;
        rate(self.n_images - n_before, now.saturating_sub(*time))
    }

    /// Images per second since the start.
    #[must_use]
    pub fn overall(&self, now: Duration) -> Option<f64> {
        rate(self.n_images, now.saturating_sub(self.start))
    }

    /// Images since the start.
    #[must_use]
    pub fn n_images(&self) -> u64 {
        self.n_images
    }
}

fn rate(n: u64, time: Duration) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "2^53 images are never reached")]
    let n = n as f64;
    (!time.is_zero()).then(|| n / time.as_secs_f64())
}

/// The time that the rest of some work takes at the pace so far; none before there is a pace.
#[must_use]
pub fn time_left(elapsed: Duration, done: u64, total: u64) -> Option<Duration> {
    let rest = rate(total.saturating_sub(done), Duration::from_secs(1))? / rate(done, elapsed)?;
    Duration::try_from_secs_f64(rest).ok()
}

/// The time that is left until a run has done all its steps.
///
/// The first steps are slow (buffers are allocated, caches are cold, the pipeline fills), so the first
/// ticks only set the point from which the pace is measured. Steps of an earlier process shorten what is
/// left but say nothing about the pace.
#[derive(Debug, Clone)]
pub struct Eta {
    n_steps: u64,
    n_ticks: u32,
    steps_at_last_tick: u64,
    last_tick: Duration,
    /// Time and step from which the pace is measured.
    origin: Option<(Duration, u64)>,
}

impl Eta {
    /// Ticks before the pace is measured.
    pub const N_WARM_UP_TICKS: u32 = 3;

    /// A run of `n_steps` steps of which a resumed one had done `n_steps_before` already.
    #[must_use]
    pub fn new(n_steps: u64, n_steps_before: u64) -> Self {
        Self {
            n_steps,
            n_ticks: 0,
            steps_at_last_tick: n_steps_before,
            last_tick: Duration::ZERO,
            origin: None,
        }
    }

    /// Says that at `now` the run has done `global_step` steps, those before a resume included.
    pub fn tick(&mut self, now: Duration, global_step: u64) {
        self.n_ticks += 1;
        self.last_tick = now;
        self.steps_at_last_tick = global_step;
        if self.n_ticks == Self::N_WARM_UP_TICKS {
            self.origin = Some((now, global_step));
        }
    }

    /// The remaining time at `now`; none until a step has been measured.
    #[must_use]
    pub fn remaining(&self, now: Duration) -> Option<Duration> {
        let n_left = self.n_steps.saturating_sub(self.steps_at_last_tick);
        if n_left == 0 {
            return Some(Duration::ZERO);
        }
        let (start, first_step) = self.origin?;
        let n_measured = self.steps_at_last_tick.checked_sub(first_step).filter(|n| *n > 0)?;
        #[expect(clippy::cast_precision_loss, reason = "2^53 steps are never reached")]
        let ratio = n_left as f64 / n_measured as f64;
        let at_tick = self.last_tick.saturating_sub(start).as_secs_f64() * ratio;
        let left = Duration::try_from_secs_f64(at_tick).unwrap_or(Duration::MAX);
        Some(left.saturating_sub(now.saturating_sub(self.last_tick)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: f64) -> Duration {
        Duration::from_secs_f64(n)
    }

    #[test]
    fn the_rest_takes_as_long_as_what_is_done() {
        for (elapsed, done, total, expected) in [
            (10.0, 1, 4, Some(secs(30.0))),
            (10.0, 4, 4, Some(secs(0.0))),
            (0.0, 1, 4, None),
            (10.0, 0, 4, None),
        ] {
            assert_eq!(time_left(secs(elapsed), done, total), expected, "{done} of {total}");
        }
    }

    #[test]
    fn throughput_over_the_window_and_overall() {
        // 10 images a second for 10 s, then 40 a second.
        let mut meter = Throughput::new(secs(5.0), secs(100.0));
        assert_eq!((meter.recent(secs(100.0)), meter.overall(secs(100.0))), (None, None));
        for second in 1..=20 {
            meter.record(secs(100.0 + f64::from(second)), if second <= 10 { 10 } else { 40 });
            let now = secs(100.0 + f64::from(second));
            let n_fast = f64::from((second - 10).clamp(0, 5));
            let recent = 10.0 + 30.0 * n_fast / f64::from(second.min(5));
            assert_eq!(meter.recent(now), Some(recent), "at {second} s");
        }
        assert_eq!(meter.overall(secs(120.0)), Some(25.0));
        assert_eq!(meter.n_images(), 500);
        // A stall: the window of 5 s holds 2 s of work, then none.
        assert_eq!(meter.recent(secs(123.0)), Some(16.0));
        assert_eq!(meter.recent(secs(130.0)), Some(0.0));
        assert_eq!(meter.overall(secs(200.0)), Some(5.0));
    }

    #[test]
    fn history_does_not_grow_with_the_run() {
        let mut meter = Throughput::new(secs(5.0), secs(0.0));
        for second in 1..10_000 {
            meter.record(secs(f64::from(second)), 1);
        }
        assert_eq!(meter.history.len(), 6);
    }

    #[test]
    fn eta_ignores_the_slow_start() {
        let mut eta = Eta::new(100, 0);
        // Three steps of 30 s, then one step a second.
        for step in 1..=3_u64 {
            assert_eq!(eta.remaining(secs(200.0)), None, "before step {step}");
            eta.tick(Duration::from_secs(30 * step), step);
        }
        assert_eq!(eta.remaining(secs(90.0)), None);
        for step in 4..=100 {
            let now = Duration::from_secs(87 + step);
            eta.tick(now, step);
            assert_eq!(eta.remaining(now), Some(Duration::from_secs(100 - step)), "step {step}");
        }
    }

    #[test]
    fn eta_of_a_resumed_run_measures_its_own_pace() {
        let mut eta = Eta::new(1_000, 900);
        for (second, step) in [(50, 902), (51, 904), (52, 906), (54, 910)] {
            eta.tick(Duration::from_secs(second), step);
        }
        // 4 steps in 2 s, 90 to go.
        assert_eq!(eta.remaining(secs(54.0)), Some(secs(45.0)));
        assert_eq!(eta.remaining(secs(55.5)), Some(secs(43.5)));
        assert_eq!(eta.remaining(secs(500.0)), Some(Duration::ZERO));
        eta.tick(secs(60.0), 1_000);
        assert_eq!(eta.remaining(secs(60.0)), Some(Duration::ZERO));
    }

    #[test]
    fn a_run_that_was_complete_has_nothing_left() {
        assert_eq!(Eta::new(100, 100).remaining(secs(1.0)), Some(Duration::ZERO));
        assert_eq!(Eta::new(100, 99).remaining(secs(1.0)), None);
    }
}
