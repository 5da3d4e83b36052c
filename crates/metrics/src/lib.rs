//! Top-k accuracy and the kNN vote from plain numbers.
//!
//! ```
//! use moco_metrics::{knn_vote, nearest};
//!
//! let (similarities, labels) = ([0.2, 0.9, 0.8, 0.1], [0, 1, 1, 0]);
//! let votes: Vec<(f32, u32)> =
//!     nearest(&similarities, 3).iter().map(|&i| (similarities[i], labels[i])).collect();
//! assert_eq!(knn_vote(&votes, 2, 0.1), 1);
//! ```
//!
//! Every tie is broken by a stated rule, so a number never depends on an order of summation or on who
//! sorted the list. What this crate deliberately does not know: tensors, devices and files.
#![forbid(unsafe_code)]

mod accuracy;
mod knn;
mod spread;

pub use accuracy::{Accuracy, top_k_correct};
pub use knn::{knn_vote, nearest};
pub use spread::{Spread, mean_and_std};
