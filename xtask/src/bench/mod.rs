//! `cargo xtask bench`: ours and a peer's, interleaved in one run on one machine.

mod cases;
mod python;
mod side;
mod step;

use clap::Subcommand;

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Training steps and single operations on the CPU, beside PyTorch
    Step(step::Args),
}

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Step(args) => step::run(args),
    }
}
