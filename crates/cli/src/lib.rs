//! Shared by the binaries: exit codes, signals, device names, the log, and the console, also while data is opened.
#![forbid(unsafe_code)]

mod console;
mod device;
mod exit;
mod log;
mod ranks;
mod report;
mod screen;
mod setup;
mod signals;
mod store;

pub use console::{Console, ConsoleKind};
pub use device::{Activations, Device};
pub use exit::{Exit, usage};
pub use log::{log_result, run_program};
pub use ranks::refuse_ranks;
pub use report::{summary_table, watch};
pub use screen::print_result;
pub use setup::{
    components, default_name, labeled_features, sources, trained_encoder, warn_of_rejected,
};
pub use signals::stop_on_signals;
pub use store::open_store;
