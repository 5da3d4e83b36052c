//! The tests of `bench` as a program.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod gpu_conv;
mod gpu_step;
