//! What the trainer is fed with, for any number of workers, after a kill, and with images that are bad.

mod bad;
mod common;
mod same_bits;
