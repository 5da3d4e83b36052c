//! CIFAR-10 and MNIST files on disk as sample sources.
//!
//! [`Cifar10`] and [`Mnist`] open a split and implement [`Source`](moco_ingest::Source).
//!
//! The files are read by candle-datasets; this crate checks them first, because those readers neither
//! name the file that is at fault nor check the labels, and turns the images back into the bytes that
//! are stored. Images are held in memory.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use moco_datasets::Cifar10;
//! use moco_ingest::{Source, Split};
//! let train = Cifar10::open(Path::new("cifar-10-batches-bin"), Split::Train)?;
//! assert_eq!(train.len(), 50_000);
//! # Ok::<(), moco_datasets::DatasetsError>(())
//! ```
//!
//! What it deliberately lacks: downloads, and the tensors that the readers make on the way.
#![forbid(unsafe_code)]

mod cifar;
mod error;
mod images;
mod mnist;

pub use cifar::Cifar10;
pub use error::DatasetsError;
pub use mnist::Mnist;
