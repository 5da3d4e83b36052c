//! Metrics as JSON lines, the log of a process and of a run, throughput and ETA.
//!
//! A [`MetricsWriter`] appends JSON objects to a file, [`start_log`] makes the events of tracing lines of text
//! on the console and in a run's file ([`RunLog`]), and [`Throughput`] and [`Eta`] measure how fast a run is.
//!
//! ```
//! use std::time::Duration;
//!
//! use moco_telemetry::{Eta, format_duration};
//!
//! let mut eta = Eta::new(600, 0);
//! for step in 1..=60 {
//!     eta.tick(Duration::from_secs(step), step);
//! }
//! let left = eta.remaining(Duration::from_secs(60)).map(format_duration);
//! assert_eq!(left.as_deref(), Some("9 min 0 s"));
//! ```
//!
//! Meters never read a clock: whoever calls them says what time it is. What this crate deliberately does
//! not know: the terminal's bar, the names of the metrics, and which thread writes them.
#![forbid(unsafe_code)]

mod error;
mod format;
mod log;
mod memory;
mod meters;
mod metrics;

pub use error::TelemetryError;
pub use format::{format_bytes, format_count, format_duration};
pub use log::{RunLog, RunLogWriter, start_log};
pub use memory::peak_memory_bytes;
pub use meters::{Eta, Throughput, time_left};
pub use metrics::{MetricsWriter, Truncated, truncate_after};
