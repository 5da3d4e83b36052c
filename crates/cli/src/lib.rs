//! Shared by the binaries: exit codes, signals, device names, and the console, also while data is opened.
#![forbid(unsafe_code)]

mod console;
mod device;
mod exit;
mod ranks;
mod report;
mod setup;
mod signals;
mod store;

pub use console::{Console, ConsoleKind, print_result};
pub use device::{Activations, Device};
pub use exit::{Exit, exit_code, usage};
pub use ranks::refuse_ranks;
pub use report::{summary_table, watch};
pub use setup::{
    components, default_name, labeled_features, sources, trained_encoder, warn_of_rejected,
};
pub use signals::stop_on_signals;
pub use store::open_store;
