//! Measures frozen features: the kNN vote and the linear classifier.
//!
//! Features come in as plain numbers ([`FeatureSet`]), so the same code measures raw pixels, a random
//! encoder and a trained one. How they are computed from images is the business of `moco-train`.
#![forbid(unsafe_code)]

mod error;
mod features;
mod knn;
mod linear;

pub use error::EvaluateError;
pub use features::FeatureSet;
pub use knn::{KnnConfig, knn_accuracy};
pub use linear::{LinearConfig, LinearProbe, linear_accuracy, train_linear};
