//! The tests of views in one program, for each program costs a link.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/jpeg_files.rs"]
mod jpeg_files;

mod damage;
mod fidelity;
mod formats;
mod golden;
mod recipe;
