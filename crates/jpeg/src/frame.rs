//! The planes of a picture while it is decoded.

use crate::block::SIDE;
use crate::header::{Component, Jpeg, Process, Transform};
use crate::{BelowRegion, Region};

/// One component: its sampling, and its samples or coefficients.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) id: u8,
    /// Sampling factors.
    pub(crate) h: usize,
    pub(crate) v: usize,
    /// Which quantization table.
    pub(crate) table: usize,
    /// The table's values when the first scan of this component began.
    pub(crate) quantization: Option<[u16; 64]>,
    /// Samples that belong to the picture.
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Blocks in a row, whole units of interleaved scans.
    pub(crate) n_across: usize,
    /// The blocks whose samples are needed.
    pub(crate) across: std::ops::Range<usize>,
    pub(crate) down: std::ops::Range<usize>,
    /// Rows of 8 * `n_across`.
    pub(crate) samples: Vec<u8>,
    /// Rows of `n_across` blocks in natural order, if the frame keeps them.
    pub(crate) coefficients: Vec<[i16; 64]>,
    /// Whether there was a scan of it.
    pub(crate) has_scan: bool,
    /// Progressive only: how many low bits of each coefficient are not known, in zigzag order; -1 if none is.
    pub(crate) unknown_bits: [i8; 64],
}

impl Plane {
    /// Samples in a row.
    pub(crate) fn stride(&self) -> usize {
        SIDE * self.n_across
    }

    /// The samples of a row that belong to the picture; rows past it repeat the last.
    pub(crate) fn row(&self, y: usize) -> &[u8] {
        &self.samples[y.min(self.height - 1) * self.stride()..][..self.width]
    }

    /// Blocks of a scan of only this component.
    pub(crate) fn own_blocks(&self) -> (usize, usize) {
        (self.width.div_ceil(SIDE), self.height.div_ceil(SIDE))
    }

    pub(crate) fn is_needed(&self, bx: usize, by: usize) -> bool {
        self.across.contains(&bx) && self.down.contains(&by)
    }
}

/// A picture in parts.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) planes: Vec<Plane>,
    pub(crate) transform: Transform,
    /// Greatest sampling factors.
    pub(crate) h: usize,
    pub(crate) v: usize,
    /// Units of an interleaved scan.
    pub(crate) n_units: (usize, usize),
    pub(crate) process: Process,
    /// Samples are computed from coefficients after the last scan, and not block by block.
    pub(crate) keeps_coefficients: bool,
    pub(crate) region: Region,
    pub(crate) below: BelowRegion,
}

impl Frame {
    pub(crate) fn new(jpeg: &Jpeg<'_>, region: Region, below: BelowRegion) -> Self {
        let keeps_coefficients = match jpeg.process {
            Process::Sequential => jpeg.has_several_scans(),
            Process::Progressive => true,
            Process::Lossless => false,
        };
        let h = jpeg.components.iter().map(|c| c.h).max().unwrap_or(1);
        let v = jpeg.components.iter().map(|c| c.v).max().unwrap_or(1);
        let (width, height) = (jpeg.width as usize, jpeg.height as usize);
        let n_units = (width.div_ceil(SIDE * h), height.div_ceil(SIDE * v));
        // Units of a lossless picture are of single samples.
        let n_scan_units = match jpeg.process {
            Process::Lossless => (width.div_ceil(h), height.div_ceil(v)),
            _ => n_units,
        };
        let plane = |c: &Component| {
            let (n_across, n_down) = (n_units.0 * c.h, n_units.1 * c.v);
            let blocks = |start: u32, n: u32, factor: usize, max: usize, n_blocks: usize| {
                let (start, end) = (start as usize * factor / max, (start + n) as usize * factor);
                // Interpolation reads one sample beyond.
                let (start, end) = (start.saturating_sub(1), end.div_ceil(max) + 1);
                start / SIDE..end.div_ceil(SIDE).min(n_blocks)
            };
            let n_coefficients = if keeps_coefficients { n_across * n_down } else { 0 };
            Plane {
                id: c.id,
                h: c.h,
                v: c.v,
                table: c.table,
                quantization: None,
                width: (width * c.h).div_ceil(h),
                height: (height * c.v).div_ceil(v),
                n_across,
                across: blocks(region.left, region.width, c.h, h, n_across),
                down: blocks(region.top, region.height, c.v, v, n_down),
                samples: vec![0; SIDE * SIDE * n_across * n_down],
                coefficients: vec![[0; 64]; n_coefficients],
                has_scan: false,
                unknown_bits: [-1; 64],
            }
        };
        Self {
            planes: jpeg.components.iter().map(plane).collect(),
            transform: jpeg.transform,
            h,
            v,
            n_units: n_scan_units,
            process: jpeg.process,
            keeps_coefficients,
            region,
            below,
        }
    }
}
