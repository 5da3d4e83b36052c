//! The binary from outside: resuming, bad input, and what a run leaves.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
#[cfg(feature = "long")]
mod campaigns;
mod common;
mod evaluation;
mod identity;
mod labels;
mod longer;
#[path = "../../../../tests/old_run.rs"]
mod old;
mod old_run;
mod parts;
mod photos;
#[cfg(feature = "remote")]
mod remote;
mod resume;
mod run_folder;
#[cfg(feature = "remote")]
#[path = "../../../../crates/ingest/tests/remote/servers.rs"]
mod servers;
