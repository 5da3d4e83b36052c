//! The one inner kernel of all convolutions: a register tile of sums of products.
//!
//! `out[out_rows[i] + v] (+)= Σ_spans Σ_{r < len} A[i·a_row + span.a + r·a_red] · B[span.b + r·b_red + v]`
//!
//! Forward convolution sums over kernel taps and input channels (`i` = output pixel), the gradient of
//! the input over taps and output channels (`i` = input pixel), the gradient of the weights over pixels
//! (`i` = tap and input channel). Only the strides differ.

use std::ops::Range;

use crate::simd::{Float, Isa, Portable, Vector};

/// Where one contiguous part of the reduction starts, in elements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) a: usize,
    pub(crate) b: usize,
    pub(crate) len: usize,
}

/// Whether results replace the contents of `out` or are added to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// It is overwritten.
    Set,
    /// The sum is added to it.
    Add,
}

/// Operands of a tile; lengths and strides in elements.
#[derive(Debug)]
pub(crate) struct Tile<'s, T> {
    pub(crate) a: *const T,
    pub(crate) a_row: usize,
    pub(crate) a_red: usize,
    pub(crate) b: *const T,
    pub(crate) b_red: usize,
    pub(crate) spans: &'s [Span],
    pub(crate) out: *mut T,
    /// Where each row of the output starts.
    pub(crate) out_rows: &'s [usize],
    /// Columns that are stored; B is read in whole vectors.
    pub(crate) columns: usize,
    pub(crate) write: Write,
}

/// How large a tile may be with the registers of an instruction set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileShape {
    pub(crate) lanes: usize,
    pub(crate) max_vectors: usize,
    isa: Isa,
}

impl TileShape {
    pub(crate) fn of<T: Float>(isa: Isa) -> Self {
        let (lanes, max_vectors) = match isa {
            Isa::Avx512 => (T::V512::LANES, 4),
            Isa::Avx2 => (T::V256::LANES, 2),
            Isa::Portable => (Portable::<T>::LANES, 1),
        };
        Self { lanes, max_vectors, isa }
    }

    /// Most rows of a tile that is `vectors` wide: its sums, one row of B and one broadcast must fit
    /// 32 registers (AVX-512) or 16.
    pub(crate) fn max_rows(self, vectors: usize) -> usize {
        match (self.isa, vectors) {
            (Isa::Avx512, 1 | 2) => 12,
            (Isa::Avx512, 3) => 8,
            (Isa::Avx512, _) | (Isa::Avx2, 2) => 6,
            (Isa::Avx2, _) => 12,
            (Isa::Portable, _) => 4,
        }
    }

    /// Splits `columns` into blocks of nearly equal width, each at most `max_vectors` vectors wide;
    /// gives the vectors of each block.
    pub(crate) fn column_blocks(self, columns: usize) -> Vec<usize> {
        let vectors = columns.div_ceil(self.lanes);
        split_evenly(vectors, self.max_vectors)
    }
}

/// Splits `n` into the fewest parts of at most `most`, as equal as possible, larger ones first.
pub(crate) fn split_evenly(n: usize, most: usize) -> Vec<usize> {
    let parts = n.div_ceil(most);
    (0..parts).map(|i| n / parts + usize::from(i < n % parts)).collect()
}

/// The parts of [`split_evenly`] as ranges that follow each other from 0.
pub(crate) fn ranges(n: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let mut end = 0;
    split_evenly(n, most).into_iter().map(move |len| {
        end += len;
        end - len..end
    })
}

/// Computes a tile of `rows` × `vectors`, at most what [`TileShape`] allows.
///
/// # Safety
/// All addresses that the formula of this module names are in bounds; columns of B up to the next whole
/// vector can be read; `shape` comes from [`crate::simd::isa`].
pub(crate) unsafe fn compute<T: Float>(
    shape: TileShape,
    rows: usize,
    vectors: usize,
    tile: &Tile<'_, T>,
) {
    // SAFETY: the caller's promise is passed on; the instruction set was detected.
    unsafe {
        match shape.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::<T>(rows, vectors, tile),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::<T>(rows, vectors, tile),
            _ => portable::<T>(rows, vectors, tile),
        }
    }
}

macro_rules! choose {
    ($vector:ty, $tile:ident, $given:expr, $(($rows:literal, $vectors:literal))*) => {
        match $given {
            $(($rows, $vectors) => sum_of_products::<$vector, $rows, $vectors>($tile),)*
            (rows, vectors) => debug_assert!(false, "no tile of {rows} rows and {vectors} vectors"),
        }
    };
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<T: Float>(rows: usize, vectors: usize, tile: &Tile<'_, T>) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        choose!(
            T::V512,
            tile,
            (rows, vectors),
            (1, 1)(2, 1)(3, 1)(4, 1)(5, 1)(6, 1)(7, 1)(8, 1)(9, 1)(10, 1)(11, 1)(12, 1)(1, 2)(2, 2)(
                3, 2
            )(4, 2)(5, 2)(6, 2)(7, 2)(8, 2)(9, 2)(10, 2)(11, 2)(12, 2)(1, 3)(2, 3)(3, 3)(
                4, 3
            )(5, 3)(6, 3)(7, 3)(8, 3)(1, 4)(2, 4)(3, 4)(4, 4)(5, 4)(6, 4)
        );
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<T: Float>(rows: usize, vectors: usize, tile: &Tile<'_, T>) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        choose!(
            T::V256,
            tile,
            (rows, vectors),
            (1, 1)(2, 1)(3, 1)(4, 1)(5, 1)(6, 1)(7, 1)(8, 1)(9, 1)(10, 1)(11, 1)(12, 1)(1, 2)(2, 2)(
                3, 2
            )(4, 2)(5, 2)(6, 2)
        );
    }
}

unsafe fn portable<T: Float>(rows: usize, vectors: usize, tile: &Tile<'_, T>) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        choose!(Portable<T>, tile, (rows, vectors), (1, 1)(2, 1)(3, 1)(4, 1));
    }
}

/// # Safety
/// As [`compute`]; the CPU has the features of `V`.
#[inline(always)]
unsafe fn sum_of_products<V: Vector, const ROWS: usize, const VECTORS: usize>(
    tile: &Tile<'_, V::Scalar>,
) {
    let mut sums = [[V::zero(); VECTORS]; ROWS];
    for span in tile.spans {
        // SAFETY: promised by the caller for each address of the formula.
        unsafe {
            let mut a = tile.a.add(span.a);
            let mut b = tile.b.add(span.b);
            for _ in 0..span.len {
                let mut row_of_b = [V::zero(); VECTORS];
                for (v, vector) in row_of_b.iter_mut().enumerate() {
                    *vector = V::load(b.add(v * V::LANES));
                }
                for (i, row) in sums.iter_mut().enumerate() {
                    let factor = V::splat(a.add(i * tile.a_row));
                    for (sum, vector) in row.iter_mut().zip(row_of_b) {
                        *sum = sum.mul_add(factor, vector);
                    }
                }
                a = a.wrapping_add(tile.a_red);
                b = b.wrapping_add(tile.b_red);
            }
        }
    }
    // A loop of constant length: with any other the sums would not stay in registers.
    for (i, row) in sums.iter().enumerate() {
        // SAFETY: there is a start for each row, and a row of the output has `columns` elements, promised
        // by the caller.
        unsafe { store_row(row, tile, tile.out.add(*tile.out_rows.get_unchecked(i))) }
    }
}

/// # Safety
/// The tile's columns can be written at `out` (and read, to accumulate).
#[inline(always)]
unsafe fn store_row<V: Vector, const VECTORS: usize>(
    row: &[V; VECTORS],
    tile: &Tile<'_, V::Scalar>,
    out: *mut V::Scalar,
) {
    let columns = tile.columns;
    let accumulate = tile.write == Write::Add;
    for (v, sum) in row.iter().enumerate() {
        let start = v * V::LANES;
        if start >= columns {
            break;
        }
        let lanes = V::LANES.min(columns - start);
        // SAFETY: `lanes` numbers exist at `to`; a part of a vector goes through a buffer that holds
        // the widest vector.
        unsafe {
            let to = out.add(start);
            if lanes == V::LANES {
                let total = if accumulate { V::load(to).add(*sum) } else { *sum };
                total.store(to);
            } else {
                let mut buffer = [std::mem::MaybeUninit::<V::Scalar>::uninit(); 16];
                let edge = buffer.as_mut_ptr().cast::<V::Scalar>();
                V::zero().store(edge);
                if accumulate {
                    std::ptr::copy_nonoverlapping(to, edge, lanes);
                }
                V::load(edge).add(*sum).store(edge);
                std::ptr::copy_nonoverlapping(edge, to, lanes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::isa;

    /// Every tile of every instruction set that this CPU has, against the formula of this module.
    fn check<T: Float>(isa: Isa) {
        let shape = TileShape::of::<T>(isa);
        let (span_len, a_row, a_red) = (3, 5, 2);
        let spans = [Span { a: 0, b: 0, len: span_len }, Span { a: 7, b: 3 * 64, len: 2 }];
        let out_rows: Vec<usize> = (0..12).map(|i| i * 64).collect();
        let a: Vec<T> = (0..80).map(|i| T::of(f64::from(i % 13) - 6.0)).collect();
        let b: Vec<T> = (0..6 * 64).map(|i| T::of(f64::from(i % 11) - 5.0)).collect();
        for vectors in 1..=shape.max_vectors {
            for rows in 1..=shape.max_rows(vectors) {
                let width = vectors * shape.lanes;
                for (columns, write) in
                    [(width, Write::Set), (width, Write::Add), (width - 1, Write::Add)]
                {
                    let mut out = vec![T::of(100.0); 12 * 64];
                    let tile = Tile {
                        a: a.as_ptr(),
                        a_row,
                        a_red,
                        b: b.as_ptr(),
                        b_red: 64,
                        spans: &spans,
                        out: out.as_mut_ptr(),
                        out_rows: &out_rows,
                        columns,
                        write,
                    };
                    // SAFETY: the last index of A is 11·5 + 7 + 2·2 = 66, rows of B and of the output
                    // have 64 elements, the width of the widest tile.
                    unsafe { compute(shape, rows, vectors, &tile) };
                    for (i, got) in out.iter().enumerate() {
                        let (row, column) = (i / 64, i % 64);
                        let mut sum = if write == Write::Add { 100.0 } else { 0.0 };
                        for span in &spans {
                            for r in 0..span.len {
                                let factor = a[(row * a_row + span.a + r * a_red) % 80].f64();
                                sum += factor * b[span.b + r * 64 + column].f64();
                            }
                        }
                        let is_inside = row < rows && column < columns;
                        let expected = if is_inside { sum } else { 100.0 };
                        // Small whole numbers: exact in any order of summation.
                        assert!(
                            (got.f64() - expected).abs() < 1e-9,
                            "{isa:?}, {rows} rows, {vectors} vectors, at {row} {column}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_tile_is_the_formula() {
        let mut all = vec![Isa::Portable];
        match isa() {
            Isa::Avx512 => all.extend([Isa::Avx2, Isa::Avx512]),
            Isa::Avx2 => all.push(Isa::Avx2),
            Isa::Portable => {}
        }
        for isa in all {
            check::<f32>(isa);
            check::<f64>(isa);
        }
    }

    #[test]
    fn parts_are_as_equal_as_can_be() {
        for (n, most, expected) in
            [(8, 6, vec![4, 4]), (14, 6, vec![5, 5, 4]), (3, 6, vec![3]), (0, 6, vec![])]
        {
            assert_eq!(split_evenly(n, most), expected);
            assert!(ranges(n, most).flatten().eq(0..n));
            assert!(ranges(n, most).map(|part| part.len()).eq(expected));
        }
    }
}
