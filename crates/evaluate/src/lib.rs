//! Measures frozen features: the kNN vote and the linear classifier.
//!
//! The principal type is [`FeatureSet`]: [`knn_accuracy`] compares two of them, [`train_linear`] fits a
//! [`LinearProbe`] on one and [`linear_accuracy`] measures it on another.
//!
//! Features come in as plain numbers ([`FeatureSet`]), so the same code measures raw pixels, a random
//! encoder and a trained one. Beside the two sets, only blocks of them are held in memory. How they are computed from images is the business of `moco-train`. What is
//! counted in the end, [`top_k_correct`] and [`knn_vote`], works on slices:
//!
//! ```
//! use moco_evaluate::{knn_vote, nearest};
//!
//! let (similarities, labels) = ([0.2, 0.9, 0.8, 0.1], [0, 1, 1, 0]);
//! let votes: Vec<(f32, u32)> =
//!     nearest(&similarities, 3).iter().map(|&i| (similarities[i], labels[i])).collect();
//! assert_eq!(knn_vote(&votes, 2, 0.1), 1);
//! ```
#![forbid(unsafe_code)]

mod error;
mod features;
mod measures;
mod progress;

pub use error::EvaluateError;
pub use features::{
    FeatureSet, KnnConfig, LinearConfig, LinearProbe, knn_accuracy, linear_accuracy, train_linear,
};
pub use measures::{knn_vote, nearest, top_k_correct};
pub use progress::Progress;
