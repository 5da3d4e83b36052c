//! The tests of operations in one program, for each program costs a link; `memory` has an allocator of its own.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "../../../tests/formulas.rs"]
mod formulas;

mod batch_norm;
#[cfg(feature = "device-tests")]
mod device_convolutions;
#[cfg(feature = "emulator")]
mod emulated;
#[cfg(feature = "emulator")]
mod emulated_activations;
#[cfg(feature = "emulator")]
mod emulated_batch_norm;
#[cfg(feature = "emulator")]
mod emulated_enqueue;
#[cfg(feature = "emulator")]
mod emulated_images;
#[cfg(feature = "emulator")]
mod emulated_info_nce;
#[cfg(feature = "emulator")]
mod emulated_recording;
#[cfg(feature = "emulator")]
mod emulated_rows;
#[cfg(feature = "emulator")]
mod emulated_updates;
mod golden;
mod gradients;
mod info_nce;
