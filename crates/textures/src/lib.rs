//! The embedded data set: labeled printed textures, generated from a seed.
//!
//! [`render()`] draws one [`Texture`]; [`write()`] draws the data set of a [`TexturesConfig`] into shards.
//!
//! 16 classes of two-color textures under nuisances that neither pixels nor a random encoder see
//! through: position, scale, mirroring, a smooth warp, two random colors, a gradient of light and noise.
//! An image is a pure function of the seed and its index, bit for bit, on every platform.
//!
//! ```
//! use moco_rng::Seed;
//! use moco_textures::{CLASSES, render};
//! let texture = render(Seed(0), 18);
//! assert_eq!(CLASSES[texture.label as usize], "dots");
//! assert_eq!(texture.pixels.len(), 48 * 48 * 3);
//! ```
//!
//! [`write()`] makes tar shards of JPEG files and a manifest, so that the default run reads its data the
//! way it would read any other. What the crate deliberately lacks: features that survive augmentation
//! and identify an image (rotation, a palette of few colors, own shapes), which an encoder would learn
//! instead of the class.
#![forbid(unsafe_code)]

mod error;
mod noise;
mod pattern;
mod render;
mod write;

pub use error::TexturesError;
pub use pattern::CLASSES;
pub use render::{SIZE, Texture, render};
pub use write::{MANIFEST_FILE, TexturesConfig, write, write_missing};
