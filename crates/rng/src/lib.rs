//! Counter-based random streams: each draw is a pure function of where it is used.
//!
//! A [`Stream`] is the ChaCha8 keystream whose 256-bit key *is* the coordinate
//! (seed, purpose, epoch, index, view). Nothing is hashed and nothing is shared, so the numbers do not
//! depend on thread count, worker count or the order in which streams are opened.
//!
//! ```
//! use moco_rng::{At, Purpose, Seed};
//! let mut stream = Seed(7).stream(Purpose::Augment, At { epoch: 3, index: 41, view: 1 });
//! let scale = stream.range(0.2, 1.0);
//! assert!((0.2..1.0).contains(&scale));
//! ```
//!
//! What it deliberately lacks: a global generator, seeding from the clock, and distributions whose
//! mapping from bits could change with a release of another crate.
#![forbid(unsafe_code)]

mod permutation;
mod stream;

pub use permutation::Permutation;
pub use stream::{At, Purpose, Seed, Stream};
