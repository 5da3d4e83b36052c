//! The two streams of a program: its result on standard output, and all else on standard error, above the bar.

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::ProgressBar;

/// The bar on the terminal. A line is written above it; log lines come from any thread.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

pub(crate) fn bar() -> MutexGuard<'static, Option<ProgressBar>> {
    BAR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Standard error, with the bar lifted out of the way of each line.
#[derive(Debug)]
pub(crate) struct AboveBar;

impl Write for AboveBar {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let write = || std::io::stderr().write_all(bytes).map(|()| bytes.len());
        match &*bar() {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// A line of a program's result on standard output. A reader that has gone, as in `| head`, is no error.
pub fn print_result(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}
