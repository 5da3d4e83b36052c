//! Pictures whose scans end early: coefficients that no scan brought are estimated from the neighboring blocks,
//! as libjpeg-turbo does for progressive files (`jdcoefct.c`; the idea is T.81's, annex K.8).
//!
//! An estimate is a weighted sum of the constant coefficients of 5 x 5 blocks.

use crate::block::NATURAL;
use crate::frame::{Frame, Plane};
use crate::header::Process;

/// Weights of the 25 constant coefficients, from the upper left on.
type Weights = [i64; 25];

/// Coefficients that are estimated, in zigzag order; with a constant one that is known, the first five others.
const N_ESTIMATED: usize = 10;

/// Where no scan brought any but the constant coefficient: a smooth surface, in zigzag order.
const SURFACE: [Weights; N_ESTIMATED] = [
    [
        -2, -6, -8, -6, -2, //
        -6, 6, 42, 6, -6, //
        -8, 42, 152, 42, -8, //
        -6, 6, 42, 6, -6, //
        -2, -6, -8, -6, -2,
    ],
    [
        -1, -1, 0, 1, 1, //
        -3, 13, 0, -13, 3, //
        -3, 38, 0, -38, 3, //
        -3, 13, 0, -13, 3, //
        -1, -1, 0, 1, 1,
    ],
    [
        -1, -3, -3, -3, -1, //
        -1, 13, 38, 13, -1, //
        0, 0, 0, 0, 0, //
        1, -13, -38, -13, 1, //
        1, 3, 3, 3, 1,
    ],
    [
        0, 0, 1, 0, 0, //
        0, 2, 7, 2, 0, //
        0, -5, -14, -5, 0, //
        0, 2, 7, 2, 0, //
        0, 0, 1, 0, 0,
    ],
    [
        -1, 0, 0, 0, 1, //
        0, 9, 0, -9, 0, //
        0, 0, 0, 0, 0, //
        0, -9, 0, 9, 0, //
        1, 0, 0, 0, -1,
    ],
    [
        0, 0, 0, 0, 0, //
        0, 2, -5, 2, 0, //
        1, 7, -14, 7, 1, //
        0, 2, -5, 2, 0, //
        0, 0, 0, 0, 0,
    ],
    [
        0, 0, 0, 0, 0, //
        0, 1, 0, -1, 0, //
        0, 2, 0, -2, 0, //
        0, 1, 0, -1, 0, //
        0, 0, 0, 0, 0,
    ],
    [
        0, 0, 0, 0, 0, //
        0, 1, -3, 1, 0, //
        0, 0, 0, 0, 0, //
        0, -1, 3, -1, 0, //
        0, 0, 0, 0, 0,
    ],
    [
        0, 0, 0, 0, 0, //
        0, 1, 0, -1, 0, //
        0, -3, 0, 3, 0, //
        0, 1, 0, -1, 0, //
        0, 0, 0, 0, 0,
    ],
    [
        0, 0, 0, 0, 0, //
        0, 1, 2, 1, 0, //
        0, 0, 0, 0, 0, //
        0, -1, -2, -1, 0, //
        0, 0, 0, 0, 0,
    ],
];

/// Where some of the others came: only the first five others, in zigzag order from 1.
const REST: [Weights; 5] = [
    [
        0, 0, 0, 0, 0, //
        0, 0, 0, 0, 0, //
        -7, 50, 0, -50, 7, //
        0, 0, 0, 0, 0, //
        0, 0, 0, 0, 0,
    ],
    [
        0, 0, -7, 0, 0, //
        0, 0, 50, 0, 0, //
        0, 0, 0, 0, 0, //
        0, 0, -50, 0, 0, //
        0, 0, 7, 0, 0,
    ],
    [
        0, 0, -1, 0, 0, //
        0, 0, 13, 0, 0, //
        0, 0, -24, 0, 0, //
        0, 0, 13, 0, 0, //
        0, 0, -1, 0, 0,
    ],
    [
        0, -1, 0, 1, 0, //
        -1, 10, 0, -10, 1, //
        0, 0, 0, 0, 0, //
        1, -10, 0, 10, -1, //
        0, 1, 0, -1, 0,
    ],
    [
        0, 0, 0, 0, 0, //
        0, 0, 0, 0, 0, //
        -1, 13, -24, 13, -1, //
        0, 0, 0, 0, 0, //
        0, 0, 0, 0, 0,
    ],
];

/// Whether coefficients are estimated at all: each component has its constant ones and divisors that are not 0,
/// and something is missing.
pub(crate) fn is_useful(frame: &Frame) -> bool {
    let is_ready = |plane: &Plane| {
        plane.unknown_bits[0] >= 0
            && plane.quantization.is_some_and(|table| {
                NATURAL[..N_ESTIMATED].iter().all(|natural| table[usize::from(*natural)] != 0)
            })
    };
    let lacks = |plane: &Plane| plane.unknown_bits[1..N_ESTIMATED].iter().any(|bits| *bits != 0);
    frame.process == Process::Progressive
        && frame.planes.iter().all(is_ready)
        && frame.planes.iter().any(lacks)
}

/// Estimates for the blocks of a plane.
pub(crate) struct Smoother {
    /// The estimated coefficients.
    estimates: Vec<Estimate>,
    /// Divisor of the constant coefficients.
    constant: i64,
    /// Last column and first row past the picture, in blocks.
    last_column: usize,
    /// Rows of blocks in a row of units, and rows of units.
    v: usize,
    n_rows: usize,
    n_unit_rows: usize,
}

struct Estimate {
    natural: usize,
    divisor: i64,
    weights: &'static Weights,
    /// What an estimate of an AC coefficient stays below; the constant one is always replaced.
    below: Option<i64>,
}

impl Smoother {
    pub(crate) fn new(plane: &Plane, table: &[u16; 64], n_unit_rows: usize) -> Self {
        let unknown = &plane.unknown_bits[..N_ESTIMATED];
        let has_only_constant = unknown[1..].iter().all(|bits| *bits == -1);
        let weights: &'static [Weights] = if has_only_constant { &SURFACE[1..] } else { &REST };
        let divisor = |zigzag: usize| i64::from(table[usize::from(NATURAL[zigzag])]);
        let mut estimates: Vec<Estimate> = (1..)
            .zip(weights)
            .filter(|(zigzag, _)| unknown[*zigzag] != 0)
            .map(|(zigzag, weights)| Estimate {
                natural: usize::from(NATURAL[zigzag]),
                divisor: divisor(zigzag),
                weights,
                below: (unknown[zigzag] > 0).then(|| 1 << unknown[zigzag]),
            })
            .collect();
        if has_only_constant {
            let weights = &SURFACE[0];
            estimates.push(Estimate { natural: 0, divisor: divisor(0), weights, below: None });
        }
        let (columns, n_rows) = plane.own_blocks();
        let last_column = columns - 1;
        let constant = divisor(0);
        Self { estimates, constant, last_column, v: plane.v, n_rows, n_unit_rows }
    }

    /// The block with estimates where it has 0 and that is not known to be right.
    pub(crate) fn block(&self, plane: &Plane, bx: usize, by: usize) -> [i16; 64] {
        let mut block = plane.coefficients[by * plane.n_across + bx];
        let rows = self.rows(by);
        let columns = [bx.saturating_sub(2), bx.saturating_sub(1), bx, bx + 1, bx + 2]
            .map(|x| x.min(self.last_column));
        let constants: Weights = std::array::from_fn(|i| {
            let (y, x) = (rows[i / 5], columns[i % 5]);
            i64::from(plane.coefficients[y * plane.n_across + x][0])
        });
        for estimate in &self.estimates {
            if estimate.natural == 0 || block[estimate.natural] == 0 {
                block[estimate.natural] = estimate.of(&constants, self.constant);
            }
        }
        block
    }

    /// The rows of blocks around row `by`. Those past the upper and lower edge repeat the edge, which libjpeg
    /// finds as if each row of units had as many rows of blocks as the one that it is at.
    fn rows(&self, by: usize) -> [usize; 5] {
        let unit = by / self.v;
        let is_last = unit + 1 == self.n_unit_rows;
        let rest = self.n_rows % self.v;
        let in_unit = if is_last && rest > 0 { rest } else { self.v };
        let (row, n_rows) = (unit * in_unit + by % self.v, in_unit * self.n_unit_rows);
        let above = if row > 0 { by - 1 } else { by };
        let far_above = if row > 1 { by - 2 } else { above };
        let below = if row + 1 < n_rows { by + 1 } else { by };
        let far_below = if row + 2 < n_rows { by + 2 } else { below };
        [far_above, above, by, below, far_below]
    }
}

impl Estimate {
    /// Divides, rounding halves away from 0.
    fn of(&self, constants: &Weights, constant: i64) -> i16 {
        let sum: i64 = self.weights.iter().zip(constants).map(|(weight, x)| weight * x).sum();
        let sum = constant * sum;
        let size = ((self.divisor << 7) + sum.abs()) / (self.divisor << 8);
        let size = self.below.map_or(size, |below| size.min(below - 1));
        (if sum < 0 { -size } else { size }) as i16
    }
}
