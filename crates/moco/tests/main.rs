//! The tests of the method in one program, for each program costs a link.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

mod end_to_end;
mod method;
