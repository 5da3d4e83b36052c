//! Measures from plain numbers: top-k accuracy and the kNN vote. No tensors, devices or files.
//!
//! Every tie is broken by a stated rule, so a number never depends on an order of summation or on who
//! sorted the list.

mod accuracy;
mod vote;

pub use accuracy::top_k_correct;
pub(crate) use vote::descending;
pub use vote::{knn_vote, nearest};
