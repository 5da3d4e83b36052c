//! Moving numbers from one order of three dimensions to another.

use crate::simd::Float;

/// Outer indices that are moved together: few enough that the lines they touch, which with powers of two
/// fall into the same places of the first-level cache, all fit there.
const TOGETHER: usize = 8;

/// A dimension: its length and how far apart its elements lie on both sides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    pub(super) len: usize,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// Moves a small block. The inner axis should be the closest one where it is read.
///
/// # Safety
/// All elements that the axes name can be read and written.
pub(super) unsafe fn reorder<T: Float>(
    from: *const T,
    to: *mut T,
    [outer, middle, inner]: [Axis; 3],
) {
    for first in (0..outer.len).step_by(TOGETHER) {
        for m in 0..middle.len {
            for o in first..(first + TOGETHER).min(outer.len) {
                // SAFETY: promised by the caller.
                unsafe {
                    let from = from.add(o * outer.from + m * middle.from);
                    let to = to.add(o * outer.to + m * middle.to);
                    if inner.from == 1 && inner.to == 1 {
                        to.copy_from_nonoverlapping(from, inner.len);
                        continue;
                    }
                    for i in 0..inner.len {
                        to.add(i * inner.to).write(from.add(i * inner.from).read());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_element_goes_where_the_axes_say() {
        let dims = [11, 3, 5];
        let from: Vec<f32> = (0..165).map(|i| f32::from(i as u8)).collect();
        // [outer, middle, inner] → [inner, middle, outer]
        let turned = |i: usize| i % 11 * 15 + i / 11 % 3 * 5 + i / 33;
        let expected: [(_, &dyn Fn(usize) -> usize); 2] =
            [([15, 5, 1], &|i| i), ([1, 11, 33], &turned)];
        for (strides, expected) in expected {
            let axis = |i: usize, from| Axis { len: dims[i], from, to: strides[i] };
            let mut to = vec![0.0; 165];
            // SAFETY: both sides have 11·3·5 elements in dense order.
            unsafe {
                reorder(from.as_ptr(), to.as_mut_ptr(), [axis(0, 15), axis(1, 5), axis(2, 1)]);
            }
            for (i, got) in to.iter().enumerate() {
                assert_eq!(*got, from[expected(i)], "{strides:?} at {i}");
            }
        }
    }
}
