//! Rows of a table in blocks of bounded size, so that nothing of the table's size is held beside it.

use std::ops::Range;

/// Numbers of a block: 64 MiB.
const BLOCK_NUMBERS: usize = 1 << 24;

/// `rows`, in order, in ranges of `at_a_time` (the last may be shorter).
pub(crate) fn ranges(rows: Range<usize>, at_a_time: usize) -> impl Iterator<Item = Range<usize>> {
    let end = rows.end;
    rows.step_by(at_a_time.max(1)).map(move |start| start..end.min(start.saturating_add(at_a_time)))
}

/// Rows of a block, for rows of `dim` numbers.
pub(crate) fn block_rows(dim: usize) -> usize {
    (BLOCK_NUMBERS / dim.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_in_one_range() {
        for (rows, at_a_time, expected) in [
            (0..5, 2, &[(0, 2), (2, 4), (4, 5)][..]),
            (3..5, 9, &[(3, 5)]),
            (2..4, 1, &[(2, 3), (3, 4)]),
        ] {
            let ends: Vec<(usize, usize)> =
                ranges(rows, at_a_time).map(|range| (range.start, range.end)).collect();
            assert_eq!(ends, expected);
        }
        assert_eq!(ranges(4..4, 3).count(), 0);
        assert_eq!([128, 1 << 24, 1 << 30].map(block_rows), [1 << 17, 1, 1]);
    }
}
