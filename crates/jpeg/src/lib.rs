//! JPEG to RGB with the samples of libjpeg-turbo, bit for bit, in safe code.
//!
//! [`read_header`] says how large the picture of a file is, and [`decode()`] then gives the pixels of a
//! [`Region`] of it. Baseline, extended and progressive Huffman coding of 8-bit samples in 1, 3 or 4
//! components are decoded. The inverse cosine transform is libjpeg's `islow`, chroma is interpolated as its
//! "fancy upsampling" does, and colors are converted in its 16-bit fixed point: the defaults, which Pillow
//! uses. Where libjpeg warns and continues with a guess (bad codes, missing data), this is a [`JpegError`].
//!
//! ```
//! # let codes = |kind, byte| [&[0xff, 0xc4, 0, 20, kind, 1][..], &[0; 15], &[byte]].concat();
//! # let file = [
//! #     &[0xff, 0xd8, 0xff, 0xdb, 0, 67, 0][..],
//! #     &[8; 64],
//! #     &[0xff, 0xc0, 0, 11, 8, 0, 1, 0, 2, 1, 1, 0x11, 0],
//! #     &codes(0, 7),
//! #     &codes(0x10, 0),
//! #     &[0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0, 0x40, 0x7f, 0xff, 0xd9],
//! # ]
//! # .concat();
//! use moco_jpeg::{BelowRegion, Region, decode, read_header};
//! let jpeg = read_header(&file)?;
//! assert_eq!((jpeg.width, jpeg.height), (2, 1));
//! let region = Region::whole(jpeg.width, jpeg.height);
//! assert_eq!(decode(jpeg, region, BelowRegion::Read)?, [192; 6]);
//! # Ok::<(), moco_jpeg::JpegError>(())
//! ```
//!
//! [`vectorized`], [`take_apart`] and [`put_together`] are what its loops are made of, for other code on
//! pixels.
//!
//! What it deliberately lacks: arithmetic coding, lossless and 12-bit files, scaling, orientation, and a
//! limit of the size, which is the caller's to check between the two calls.
#![forbid(unsafe_code)]

mod block;
mod channels;
mod color;
mod decode;
mod error;
mod exif;
mod frame;
mod header;
mod huffman;
mod idct;
mod lossless;
mod progressive;
mod region;
mod scan;
mod segments;
mod sequential;
mod simd;
mod smooth;
mod standard;
mod tables;
mod upsample;

pub use channels::{put_together, take_apart};
pub use decode::decode;
pub use error::JpegError;
pub use header::{Jpeg, read_header};
pub use region::{BelowRegion, Region};
pub use simd::{Avx2, vectorized};
pub use standard::codes as standard_codes;
