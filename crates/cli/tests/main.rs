//! The tests of what the programs share, in one program, for each program costs a link.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod components;
mod places;
