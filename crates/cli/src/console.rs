//! The terminal: a bar with the time left, or plain lines.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::log::logs_to_console;
use crate::screen::{AboveBar, bar};

/// The time between two lines off a terminal.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// The destination of progress output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsoleKind {
    /// A bar that redraws itself.
    Terminal,
    /// Lines without escape bytes.
    Plain,
}

/// Who writes what happens to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lines {
    /// The console, in short.
    Short,
    /// The log, as `RUST_LOG` chooses: the console then writes none of its own.
    Log,
}

/// Writes progress and messages to standard error.
#[derive(Debug)]
pub struct Console {
    kind: ConsoleKind,
    lines: Lines,
    bar: ProgressBar,
    total: u64,
    pace: Pace,
}

/// Which reports become lines off a terminal: the first at once, so that nobody has to wonder whether the
/// work began; then one a minute, however much is done in it; and the last.
#[derive(Debug)]
struct Pace {
    began: Instant,
    /// When a line was last written.
    last: Option<Instant>,
}

impl Pace {
    fn new() -> Self {
        Self { began: Instant::now(), last: None }
    }

    /// No line was written for too long, not even a first one.
    fn is_late(&self, now: Instant) -> bool {
        now.duration_since(self.last.unwrap_or(self.began)) >= LINE_EVERY
    }

    fn is_due(&mut self, now: Instant, done: u64, total: u64) -> bool {
        let is_due = self.last.is_none() || self.is_late(now) || done == total;
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

impl Console {
    /// A bar if standard error is a terminal that can draw one, lines elsewhere.
    #[must_use]
    pub fn detect() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "terminal conventions are environment variables"
        )]
        let term = std::env::var("TERM");
        let can_draw = std::io::stderr().is_terminal() && term.is_ok_and(|term| term != "dumb");
        let kind = if can_draw { ConsoleKind::Terminal } else { ConsoleKind::Plain };
        let lines = if logs_to_console() { Lines::Log } else { Lines::Short };
        Self { lines, ..Self::new(kind) }
    }

    /// A console of this kind.
    #[must_use]
    pub fn new(kind: ConsoleKind) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Self { kind, lines: Lines::Short, bar, total: 0, pace: Pace::new() }
    }

    /// Shows a bar from `done` to `total`.
    pub fn start(&mut self, done: u64, total: u64) {
        self.total = total;
        self.pace = Pace::new();
        if self.kind == ConsoleKind::Terminal {
            self.bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            // `wide_msg` is cut to the width of the terminal: a bar that wraps cannot be redrawn.
            let template = "{bar:8} {pos}/{len}  {wide_msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style);
            }
            self.bar.set_position(done);
            *bar() = Some(self.bar.clone());
        }
    }

    /// As [`Console::start`] from 0, but the first line off a terminal comes only after a while: for work that
    /// another line has announced.
    pub(crate) fn start_quietly(&mut self, total: u64) {
        self.start(0, total);
        self.pace.last = Some(Instant::now());
    }

    /// Moves the bar.
    pub fn advance(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// The text after the bar; off a terminal a line, not more often than a person wants.
    pub fn status(&mut self, done: u64, text: &str) {
        if self.kind == ConsoleKind::Terminal {
            self.bar.set_message(text.to_owned());
            return;
        }
        if self.pace.is_due(Instant::now(), done, self.total) {
            self.line(&format!("{done}/{}  {text}", self.total));
        }
    }

    /// Moves the bar; off a terminal a line with this text where none was written for a minute, since reports
    /// may be hours apart.
    pub(crate) fn beat(&mut self, done: u64, text: &dyn Fn() -> String) {
        self.advance(done);
        let now = Instant::now();
        if self.kind == ConsoleKind::Plain && self.pace.is_late(now) {
            self.pace.last = Some(now);
            self.line(&format!("{done}/{}  {}", self.total, text()));
        }
    }

    /// A line that stays, about something that the log has as well.
    pub fn line(&self, text: &str) {
        if self.lines == Lines::Short {
            // A closed standard error must not end a run.
            drop(AboveBar.write_all(format!("{text}\n").as_bytes()));
        }
    }

    /// An event of the program itself: a line that stays, and a line of the log.
    pub fn report(&self, text: &str) {
        tracing::info!("{text}");
        self.line(text);
    }

    /// An event of the program itself that a person should look at.
    pub fn warn(&self, text: &str) {
        tracing::warn!("{text}");
        self.line(&format!("warning: {text}"));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        *bar() = None;
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_report_are_lines_and_one_a_minute_between() {
        let mut pace = Pace::new();
        let start = pace.began;
        assert!(!pace.is_late(start + Duration::from_secs(59)));
        assert!(pace.is_late(start + Duration::from_secs(60)), "no report yet");
        for (done, secs, expected) in [
            (25, 2, true),
            (50, 4, false),
            (150, 61, false),
            // However little was done in it.
            (151, 62, true),
            (2999, 121, false),
            (3000, 121, true),
        ] {
            let now = start + Duration::from_secs(secs);
            assert_eq!(pace.is_due(now, done, 3000), expected, "{done} after {secs} s");
        }
        assert!(!pace.is_late(start + Duration::from_secs(180)));
        assert!(pace.is_late(start + Duration::from_secs(181)), "reports are rarer than lines");
    }

    #[test]
    fn each_work_has_a_first_line() {
        let mut console = Console::new(ConsoleKind::Plain);
        for _ in 0..2 {
            console.start(0, 100);
            assert!(console.pace.is_due(Instant::now(), 1, 100));
            assert!(!console.pace.is_due(Instant::now(), 2, 100));
        }
    }
}
