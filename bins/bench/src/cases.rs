//! The cases by their names.

use anyhow::{Context as _, bail};

use crate::case::{Case, Words};
use crate::{ops, step};

/// Sets up what a line names.
pub(crate) fn case(line: &str) -> anyhow::Result<Case> {
    let mut words = Words::of(line);
    match words.word("the case")? {
        "peak" => Ok(Case::from(|| {
            std::hint::black_box(moco_ops::multiply_adds(1_000_000_000));
            Ok(())
        })),
        "step" => step::case(&mut words),
        "conv" => ops::conv(&mut words),
        "bn" => ops::batch_norm(&mut words, ops::Added::No),
        "bn_add" => ops::batch_norm(&mut words, ops::Added::Yes),
        "max_pool" => ops::max_pool_3x3(&mut words),
        "info_nce" => ops::info_nce_128(&mut words),
        "sgd" => ops::sgd(&mut words),
        "ema" => ops::ema(&mut words),
        other => bail!("no case {other:?}; see `bench --help`"),
    }
    .with_context(|| format!("case {line:?}"))
}
