//! Sizes and offsets of a convolution, and zero-padded copies of its operands.

use std::borrow::Cow;

use rayon::prelude::*;

use super::Conv2dSpec;
use crate::error::OpError;
use crate::simd::Float;

/// Everything known from the shapes. `c`/`co` are input and output channels, `ho`/`wo` output sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) n: usize,
    pub(crate) c: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) co: usize,
    pub(crate) k: usize,
    pub(crate) ho: usize,
    pub(crate) wo: usize,
    pub(crate) spec: Conv2dSpec,
}

impl Geometry {
    pub(crate) fn new(
        op: &'static str,
        [n, c, h, w]: [usize; 4],
        [co, c_in_group, k, k_width]: [usize; 4],
        spec: Conv2dSpec,
    ) -> Result<Self, OpError> {
        let Conv2dSpec { stride, padding, dilation, groups } = spec;
        for (argument, value) in [("stride", stride), ("dilation", dilation), ("groups", groups)] {
            if value == 0 {
                return Err(OpError::Argument { op, argument, expected: "at least 1", got: 0.0 });
            }
        }
        let expected =
            format!("[C_out, {}, K, K], C_out a multiple of {groups} groups", c / groups);
        if !c.is_multiple_of(groups)
            || !co.is_multiple_of(groups)
            || c_in_group != c / groups
            || k != k_width
            || k == 0
        {
            let got = vec![co, c_in_group, k, k_width];
            return Err(OpError::Shape { op, tensor: "weight", expected, got });
        }
        let reach = dilation * (k - 1) + 1;
        if h + 2 * padding < reach || w + 2 * padding < reach {
            let expected = format!("images of at least {} pixels a side", reach - 2 * padding);
            return Err(OpError::Shape { op, tensor: "x", expected, got: vec![n, c, h, w] });
        }
        let out = |size: usize| (size + 2 * padding - reach) / stride + 1;
        Ok(Self { n, c, h, w, co, k, ho: out(h), wo: out(w), spec })
    }

    /// Input channels of a group.
    pub(crate) fn c_group(&self) -> usize {
        self.c / self.spec.groups
    }

    /// Output channels of a group.
    pub(crate) fn co_group(&self) -> usize {
        self.co / self.spec.groups
    }

    /// Whether output pixel p reads input pixel p and nothing else.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.k == 1 && self.spec.stride == 1 && self.spec.padding == 0
    }

    /// Whether the taps of a kernel row touch one contiguous run of memory.
    pub(crate) fn rows_are_contiguous(&self) -> bool {
        self.spec.groups == 1 && self.spec.dilation == 1
    }
}

/// Zeros around and behind the pixels of a channels-last batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Padding {
    pub(crate) top: usize,
    pub(crate) bottom: usize,
    pub(crate) left: usize,
    pub(crate) right: usize,
    /// Zero channels behind the last one.
    pub(crate) channels: usize,
}

/// A batch `[n, h, w, c]` with zeros added; borrowed if there is nothing to add.
#[derive(Debug)]
pub(crate) struct Padded<'a, T: Clone> {
    pub(crate) numbers: Cow<'a, [T]>,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) c: usize,
}

/// Adds zeros to a channels-last batch.
pub(crate) fn pad<T: Float>(x: &[T], [h, w, c]: [usize; 3], by: Padding) -> Padded<'_, T> {
    let Padding { top, bottom, left, right, channels } = by;
    let padded = (h + top + bottom, w + left + right, c + channels);
    let numbers = if padded == (h, w, c) {
        Cow::Borrowed(x)
    } else {
        let image = padded.0 * padded.1 * padded.2;
        let mut out = vec![T::zero(); x.len() / (h * w * c) * image];
        out.par_chunks_mut(image).zip(x.par_chunks(h * w * c)).for_each(|(out, x)| {
            for (y, row) in x.chunks_exact(w * c).enumerate() {
                let start = ((y + top) * padded.1 + left) * padded.2;
                let out = &mut out[start..start + w * padded.2];
                if channels == 0 {
                    out.copy_from_slice(row);
                } else {
                    for (out, pixel) in out.chunks_exact_mut(padded.2).zip(row.chunks_exact(c)) {
                        out[..c].copy_from_slice(pixel);
                    }
                }
            }
        });
        Cow::Owned(out)
    };
    Padded { numbers, h: padded.0, w: padded.1, c: padded.2 }
}
