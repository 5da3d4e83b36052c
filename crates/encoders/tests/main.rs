//! The tests of encoders in one program, for each program costs a link.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

mod autograd;
mod explicit_backward;
mod initial_values;
mod stages;
