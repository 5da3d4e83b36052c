//! Signals become a flag that the training loop looks at between steps.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::flag;

/// Exit code of a second Ctrl-C.
const LEFT_AT_ONCE: i32 = 130;

/// A flag that Ctrl-C, SIGTERM and SIGUSR1 set. A second Ctrl-C leaves the program at once. SIGXFSZ,
/// which would kill the program where a file grows over a limit, becomes an ordinary write error.
///
/// # Errors
/// If the system refuses a handler.
pub fn stop_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    flag::register_conditional_shutdown(SIGINT, LEFT_AT_ONCE, Arc::clone(&stop))
        .context("cannot handle Ctrl-C")?;
    for signal in [SIGINT, SIGTERM, SIGUSR1] {
        flag::register(signal, Arc::clone(&stop)).context("cannot handle signals")?;
    }
    flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).context("cannot handle SIGXFSZ")?;
    Ok(stop)
}
