//! Metrics as JSON lines, run logs, throughput and ETA.
//!
//! A [`MetricsWriter`] appends JSON objects to a file, a [`RunLog`] appends lines of text, and [`Throughput`]
//! and [`Eta`] measure how fast a run is.
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
pub use log::{RunLog, init_tracing, local_time};
pub use memory::peak_memory_bytes;
pub use meters::{Eta, Throughput};
pub use metrics::{MetricsWriter, Truncated, truncate_after};
