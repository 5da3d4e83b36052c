//! Pieces of a buffer that are handed out in turn and used again once whoever reads them is done.

use std::collections::VecDeque;
use std::ops::Range;

/// Where pieces begin: what copies from memory of the host do best.
const ALIGNMENT: usize = 16;

/// Which pieces of a buffer of `len` bytes are in use, each with the mark that shows when it no longer is.
#[derive(Debug)]
pub(crate) struct Ring<M> {
    len: usize,
    next: usize,
    in_use: VecDeque<(Range<usize>, M)>,
}

impl<M> Ring<M> {
    pub(crate) fn new(len: usize) -> Self {
        Self { len, next: 0, in_use: VecDeque::new() }
    }

    /// A piece of so many bytes, and the mark to wait for before it is written; none if the buffer is
    /// smaller. Marks are reached in the order in which they were given.
    pub(crate) fn claim(&mut self, bytes: usize) -> Option<(Range<usize>, Option<M>)> {
        if bytes > self.len {
            return None;
        }
        let start = if self.next + bytes <= self.len { self.next } else { 0 };
        let piece = start..start + bytes;
        let overlaps = |used: &Range<usize>| used.start < piece.end && piece.start < used.end;
        let mut last = None;
        while self.in_use.iter().any(|(used, _)| overlaps(used)) {
            last = self.in_use.pop_front().map(|(_, mark)| mark);
        }
        self.next = piece.end.next_multiple_of(ALIGNMENT);
        Some((piece, last))
    }

    /// Says that the piece is read until the mark is reached.
    pub(crate) fn mark(&mut self, piece: Range<usize>, mark: M) {
        self.in_use.push_back((piece, mark));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Claims pieces of these sizes and says for each where it is and which claim must be over before.
    fn claims(len: usize, sizes: &[usize]) -> Vec<(usize, Option<usize>)> {
        let mut ring = Ring::new(len);
        let claim = |(number, size): (usize, &usize)| {
            let (piece, last) = ring.claim(*size).unwrap();
            assert_eq!(piece.len(), *size);
            ring.mark(piece.clone(), number);
            (piece.start, last)
        };
        sizes.iter().enumerate().map(claim).collect()
    }

    #[test]
    fn pieces_follow_each_other_and_wait_for_those_that_they_replace() {
        let expected = [(0, None), (16, None), (48, None), (0, Some(0)), (16, Some(1))];
        assert_eq!(claims(64, &[16, 20, 16, 16, 16]), expected);
        // The end is too short for the last piece, which takes the place of both.
        assert_eq!(claims(64, &[30, 20, 40]), [(0, None), (32, None), (0, Some(1))]);
        assert_eq!(claims(16, &[16, 16, 16]), [(0, None), (0, Some(0)), (0, Some(1))]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut ring = Ring::<()>::new(32);
        assert!(ring.claim(33).is_none());
        assert_eq!(ring.claim(32).unwrap().0, 0..32);
        assert_eq!(ring.claim(0).unwrap().0.len(), 0);
    }
}
