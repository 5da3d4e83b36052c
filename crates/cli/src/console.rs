//! The terminal: a bar with the time left, or plain lines.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Lines between bars off a terminal: at each 5 % or 60 seconds, whichever is rarer.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Where progress goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsoleKind {
    /// A bar that redraws itself.
    Terminal,
    /// Lines without escape bytes.
    Plain,
}

/// Writes progress and messages to standard error.
#[derive(Debug)]
pub struct Console {
    kind: ConsoleKind,
    bar: ProgressBar,
    total: u64,
    last_line: Instant,
    last_share: u64,
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
        Self::new(if can_draw { ConsoleKind::Terminal } else { ConsoleKind::Plain })
    }

    /// A console of this kind.
    #[must_use]
    pub fn new(kind: ConsoleKind) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Self { kind, bar, total: 0, last_line: Instant::now(), last_share: 0 }
    }

    /// Shows a bar from `done` to `total`.
    pub fn start(&mut self, done: u64, total: u64) {
        self.total = total;
        if self.kind == ConsoleKind::Terminal {
            self.bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            // `wide_msg` is cut to the width of the terminal: a bar that wraps cannot be redrawn.
            let template = "{bar:20} {pos}/{len}  {wide_msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style);
            }
            self.bar.set_position(done);
        }
    }

    /// Whether [`Console::start`] was called.
    pub(crate) fn is_started(&self) -> bool {
        self.total > 0
    }

    /// Moves the bar.
    pub fn advance(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// The text behind the bar; off a terminal a line, not more often than a person wants.
    pub fn status(&mut self, done: u64, text: &str) {
        if self.kind == ConsoleKind::Terminal {
            self.bar.set_message(text.to_owned());
            return;
        }
        let share = (done * 20).checked_div(self.total).unwrap_or(0);
        let is_due = share > self.last_share && self.last_line.elapsed() >= LINE_EVERY;
        let is_first = self.last_share == 0 && share > 0;
        if is_due || is_first || done == self.total {
            self.line(&format!("{done}/{}  {text}", self.total));
            self.last_share = share;
            self.last_line = Instant::now();
        }
    }

    /// A line that stays.
    pub fn line(&self, text: &str) {
        if self.kind == ConsoleKind::Terminal && !self.bar.is_finished() {
            self.bar.suspend(|| write_line(text));
        } else {
            write_line(text);
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A line of a program's result on standard output. A reader that has gone, as in `| head`, is no error.
pub fn print_result(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// A closed standard error must not end a run.
fn write_line(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}
