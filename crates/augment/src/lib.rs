//! Decodes an image once and draws views of it as torchvision and Pillow do.
//!
//! The principal type is [`Recipe`], built from a [`RecipeConfig`]: it is the [`Augmentation`] of the papers and draws the
//! views of an [`RgbImage`]. Implement the trait [`Augmentation`] for your own views.
//!
//! Decoding has the samples of libjpeg-turbo, and all that follows the roundings of Pillow 12.3.0 and the
//! parameter rules of torchvision, so a view with given parameters equals the one they make, bit for bit
//! (`tests/golden.rs` and `tests/fidelity.rs` hold the proof, the scripts in `tests/golden` the oracle).
//! [`Fidelity::Fast`] trades that for speed within bounds that are tested.
//!
//! ```
//! use moco_augment::{Augmentation, Recipe, RecipeConfig, RecipeKind, RgbImage};
//! use moco_rng::{At, Purpose, Seed};
//! # fn main() -> Result<(), moco_augment::AugmentError> {
//! let image = RgbImage::new(48, 40, vec![128; 48 * 40 * 3])?;
//! let config = RecipeConfig { image_size: 32, crop_scale: (0.2, 1.0), kind: RecipeKind::V2 };
//! let recipe = Recipe::new(config)?;
//! let at = At { epoch: 0, index: 7, view: 1 };
//! let view = recipe.view(&image, Seed(1).stream(Purpose::Augment, at))?;
//! assert_eq!((view.width(), view.height()), (32, 32));
//! # Ok(())
//! # }
//! ```
//!
//! What it deliberately lacks: batches, threads and files.
#![forbid(unsafe_code)]

mod center_crop;
mod color_jitter;
mod crop_box;
mod decode;
mod error;
mod exif;
mod fast_jitter;
mod fidelity;
mod flip;
mod formats;
mod gaussian_blur;
mod grayscale;
mod hue;
mod image;
mod normalize;
mod planes;
mod png_chunks;
mod png_pixels;
mod random_resized_crop;
mod recipe;
mod resample;
mod whole;

pub use center_crop::{center_crop, resize_shorter_side};
pub use color_jitter::{
    ColorJitter, JitterDraw, JitterOp, adjust_brightness, adjust_contrast, adjust_saturation,
};
pub use crop_box::CropBox;
pub use error::AugmentError;
pub use exif::{Exif, exif_orientation};
pub use fidelity::Fidelity;
pub use flip::flip_horizontal;
pub use gaussian_blur::gaussian_blur;
pub use grayscale::{grayscale, luma};
pub use hue::adjust_hue;
pub use image::RgbImage;
pub use normalize::Normalizer;
pub use random_resized_crop::{RandomResizedCrop, resized_crop};
pub use recipe::{Augmentation, DrawnView, Frame, Recipe, RecipeConfig, RecipeKind, Square, Step};
