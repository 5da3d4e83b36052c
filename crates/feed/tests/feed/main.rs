//! The batches of a feed for any number of workers, after a kill, and with images that are bad.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad;
mod common;
mod same_bits;
