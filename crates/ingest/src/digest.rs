//! What a data set is known by without reading its images again: a number that a run keeps.

use std::fmt;

/// The digest of a split: how much there is, and a checksum of what it is made of, in the order of its samples.
/// Displayed, and compared as displayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDigest {
    parts: Parts,
    n_parts: u64,
    n_bytes: u64,
    checksum: blake3::Hash,
}

/// What a digest is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parts {
    /// Names and sizes of images. Content that changed while the size stayed is not seen.
    NamesAndSizes,
    /// Checksums of shards, as their manifest has them.
    ShardChecksums,
    /// The pixels and labels themselves.
    Pixels,
}

impl DataDigest {
    /// The digest of images by name and size, in the order of the samples.
    #[must_use]
    pub fn of_images<'a>(images: impl Iterator<Item = (&'a str, u64)>) -> Self {
        let of_name = |(name, n_bytes): (&'a str, u64)| {
            // A name's length keeps `ab` and `c` apart from `a` and `bc`.
            let mut bytes = (name.len() as u64).to_le_bytes().to_vec();
            bytes.extend(name.as_bytes());
            bytes.extend(n_bytes.to_le_bytes());
            (bytes, n_bytes)
        };
        Self::of_parts(Parts::NamesAndSizes, images.map(of_name))
    }

    /// The digest of shards by checksum and size, in the order of the samples; their names do not matter.
    #[must_use]
    pub fn of_shards<'a>(shards: impl Iterator<Item = (&'a str, u64)>) -> Self {
        let of_shard =
            |(checksum, n_bytes): (&'a str, u64)| (checksum.as_bytes().to_vec(), n_bytes);
        Self::of_parts(Parts::ShardChecksums, shards.map(of_shard))
    }

    /// The digest of pixels and labels that are in memory.
    #[must_use]
    pub fn of_pixels(pixels: &[u8], labels: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(pixels).update(labels);
        let (n_parts, n_bytes) = (labels.len() as u64, pixels.len() as u64);
        Self { parts: Parts::Pixels, n_parts, n_bytes, checksum: hasher.finalize() }
    }

    fn of_parts(parts: Parts, all: impl Iterator<Item = (Vec<u8>, u64)>) -> Self {
        let mut hasher = blake3::Hasher::new();
        let (mut n_parts, mut n_all_bytes) = (0, 0_u64);
        for (bytes, n_bytes) in all {
            hasher.update(&bytes);
            n_parts += 1;
            n_all_bytes = n_all_bytes.saturating_add(n_bytes);
        }
        Self { parts, n_parts, n_bytes: n_all_bytes, checksum: hasher.finalize() }
    }
}

/// `100 images of 81920 bytes by name and size, blake3 0123456789abcdef0123456789abcdef`.
impl fmt::Display for DataDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { parts, n_parts, n_bytes, checksum } = self;
        let (what, by) = match parts {
            Parts::NamesAndSizes => ("image", "name and size"),
            Parts::ShardChecksums => ("shard", "checksum"),
            Parts::Pixels => ("image", "pixels and labels"),
        };
        let s = if *n_parts == 1 { "" } else { "s" };
        // Half of the digits are enough to keep any two data sets of a person apart.
        let checksum = checksum.to_hex();
        let digits = checksum.get(..32).unwrap_or(&checksum);
        write!(f, "{n_parts} {what}{s} of {n_bytes} bytes by {by}, blake3 {digits}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sizes_and_order_matter_and_each_is_counted() {
        let of = |images: &[(&str, u64)]| DataDigest::of_images(images.iter().copied()).to_string();
        let first = of(&[("a/1.jpg", 3), ("b/2.jpg", 4)]);
        assert_eq!(first.split(", blake3 ").next(), Some("2 images of 7 bytes by name and size"));
        // By the function `blake3` of `checkpoint/tests/golden/checksum.py`, of pack("<Q", 7) + b"a/1.jpg" +
        // pack("<Q", 3) and the same of the other.
        assert!(first.ends_with("8ca8431da45d14ea15328aa61e2f9a28"), "{first}");
        for other in [
            &[("a/1.jpg", 4), ("b/2.jpg", 3)][..],
            &[("b/2.jpg", 4), ("a/1.jpg", 3)],
            &[("a/1.jp", 3), ("gb/2.jpg", 4)],
            &[("a/1.jpg", 3)],
        ] {
            assert_ne!(of(other), first);
        }
        assert_eq!(of(&[("a/1.jpg", 3), ("b/2.jpg", 4)]), first);
        assert!(of(&[("a/1.jpg", 3)]).starts_with("1 image of 3 bytes by name and size, blake3 "));
    }

    #[test]
    fn shards_are_known_by_their_checksums_and_pixels_by_themselves() {
        let shards = DataDigest::of_shards([("0a", 10), ("0b", 20)].into_iter()).to_string();
        assert!(shards.starts_with("2 shards of 30 bytes by checksum, blake3 "), "{shards}");
        assert_ne!(DataDigest::of_shards([("0b", 10), ("0a", 20)].into_iter()).to_string(), shards);
        let pixels = DataDigest::of_pixels(&[1, 2, 3, 4], &[0, 1]);
        assert!(pixels.to_string().starts_with("2 images of 4 bytes by pixels and labels, "));
        assert_ne!(DataDigest::of_pixels(&[1, 2, 3, 5], &[0, 1]), pixels);
        assert_ne!(DataDigest::of_pixels(&[1, 2, 3, 4], &[1, 1]), pixels);
    }
}
