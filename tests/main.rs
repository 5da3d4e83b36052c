//! The tests that cross crates in one program, for each program costs a link.
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and one prints what a table has"
)]

mod faults;
mod formulas;
#[cfg(feature = "emulator")]
mod gpu_cases;

#[cfg(feature = "emulator")]
mod emulated_evaluation;
#[cfg(feature = "emulator")]
mod emulated_step;
#[cfg(feature = "emulator")]
mod images_on_gpu;
#[cfg(feature = "emulator")]
mod recorded_step;
mod seeded_faults;
mod step_parity;
