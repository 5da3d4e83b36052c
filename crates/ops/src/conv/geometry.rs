//! Sizes of a convolution, and which pixels of one side meet which pixels of the other.

use super::spec::Conv2dSpec;
use crate::error::OpError;

/// Everything known from the shapes. `c`/`co` are input and output channels, `ho`/`wo` output sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

    /// Output pixels by the input pixels they read.
    pub(super) fn outputs(&self) -> Vec<Region> {
        let Conv2dSpec { stride, padding, dilation, .. } = self.spec;
        let reach = |size: usize| {
            move |o: usize, tap: usize| {
                (o * stride + tap * dilation).checked_sub(padding).filter(|i| *i < size)
            }
        };
        let ys = classes(self.ho, self.k, reach(self.h));
        let xs = classes(self.wo, self.k, reach(self.w));
        regions(&ys, &xs, self.k)
    }

    /// Input pixels by the output pixels that read them.
    pub(super) fn inputs(&self) -> Vec<Region> {
        let Conv2dSpec { stride, padding, dilation, .. } = self.spec;
        let reach = |size: usize| {
            move |i: usize, tap: usize| {
                let distance = (i + padding).checked_sub(tap * dilation)?;
                let o = distance / stride;
                (distance.is_multiple_of(stride) && o < size).then_some(o)
            }
        };
        let ys = classes(self.h, self.k, reach(self.ho));
        let xs = classes(self.w, self.k, reach(self.wo));
        regions(&ys, &xs, self.k)
    }
}

/// Pixels of an image that meet the other side through the same taps: the inside, an edge, a corner, and
/// with a stride the phases of each. No pixel ever meets the padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Region {
    /// Rows, each with the row that its first tap meets.
    pub(super) ys: Vec<(usize, usize)>,
    /// Columns, each with the column that its first tap meets.
    pub(super) xs: Vec<(usize, usize)>,
    /// Taps in rising order.
    pub(super) taps: Vec<Tap>,
}

/// A tap, and where it meets the other side, relative to the first tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tap {
    pub(super) index: usize,
    pub(super) dy: isize,
    pub(super) dx: isize,
}

impl Region {
    /// Pixels in one image.
    pub(super) fn pixels(&self) -> usize {
        self.ys.len() * self.xs.len()
    }
}

/// Coordinates with the same taps, and where those lie relative to the first.
struct Class {
    /// Each with what its first tap meets.
    coordinates: Vec<(usize, usize)>,
    /// (tap, distance from what the first tap meets)
    taps: Vec<(usize, isize)>,
}

/// Sorts the coordinates below `len` by what `meets(coordinate, tap)`.
fn classes(len: usize, k: usize, meets: impl Fn(usize, usize) -> Option<usize>) -> Vec<Class> {
    let mut classes: Vec<Class> = Vec::new();
    for coordinate in 0..len {
        let met: Vec<(usize, usize)> =
            (0..k).filter_map(|tap| Some((tap, meets(coordinate, tap)?))).collect();
        let first = met.first().map_or(0, |(_, met)| *met);
        let taps: Vec<(usize, isize)> =
            met.iter().map(|(tap, met)| (*tap, met.wrapping_sub(first).cast_signed())).collect();
        match classes.iter_mut().find(|class| class.taps == taps) {
            Some(class) => class.coordinates.push((coordinate, first)),
            None => classes.push(Class { coordinates: vec![(coordinate, first)], taps }),
        }
    }
    classes
}

fn regions(ys: &[Class], xs: &[Class], k: usize) -> Vec<Region> {
    let both = ys.iter().flat_map(|y| xs.iter().map(move |x| (y, x)));
    both.map(|(y, x)| {
        let taps = y.taps.iter().flat_map(|(ky, dy)| {
            x.taps.iter().map(move |(kx, dx)| Tap { index: ky * k + kx, dy: *dy, dx: *dx })
        });
        Region { ys: y.coordinates.clone(), xs: x.coordinates.clone(), taps: taps.collect() }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each pair of an output pixel and an input pixel, from the definition.
    fn pairs(g: Geometry) -> Vec<(usize, [usize; 2], [usize; 2])> {
        let Conv2dSpec { stride, padding, dilation, .. } = g.spec;
        let mut pairs = Vec::new();
        for (oy, ox) in (0..g.ho).flat_map(|y| (0..g.wo).map(move |x| (y, x))) {
            for tap in 0..g.k * g.k {
                let y = (oy * stride + tap / g.k * dilation).checked_sub(padding);
                let x = (ox * stride + tap % g.k * dilation).checked_sub(padding);
                if let (Some(y), Some(x)) = (y.filter(|y| *y < g.h), x.filter(|x| *x < g.w)) {
                    pairs.push((tap, [oy, ox], [y, x]));
                }
            }
        }
        pairs
    }

    fn pairs_of(regions: &[Region]) -> Vec<(usize, [usize; 2], [usize; 2])> {
        let mut pairs = Vec::new();
        for region in regions {
            for ((y, first_y), (x, first_x)) in
                region.ys.iter().flat_map(|y| region.xs.iter().map(move |x| (*y, *x)))
            {
                for tap in &region.taps {
                    let met = [
                        first_y.checked_add_signed(tap.dy).unwrap(),
                        first_x.checked_add_signed(tap.dx).unwrap(),
                    ];
                    pairs.push((tap.index, [y, x], met));
                }
            }
        }
        pairs
    }

    #[test]
    fn regions_hold_each_pair_of_pixels_once() {
        for (size, k, stride, padding, dilation) in [
            ([7, 5], 3, 1, 1, 1),
            ([6, 7], 1, 2, 0, 1),
            ([9, 8], 3, 2, 1, 1),
            ([2, 2], 3, 1, 1, 1),
            ([11, 9], 3, 3, 1, 2),
            ([12, 13], 7, 2, 3, 1),
            ([5, 5], 5, 1, 4, 1),
            ([4, 4], 2, 2, 0, 1),
        ] {
            let spec = Conv2dSpec { stride, padding, dilation, groups: 1 };
            let g = Geometry::new("", [1, 1, size[0], size[1]], [1, 1, k, k], spec).unwrap();
            let mut expected = pairs(g);
            let mut outputs = pairs_of(&g.outputs());
            let mut inputs: Vec<_> =
                pairs_of(&g.inputs()).into_iter().map(|(tap, i, o)| (tap, o, i)).collect();
            expected.sort_unstable();
            outputs.sort_unstable();
            inputs.sort_unstable();
            assert_eq!(outputs, expected, "{g:?}");
            assert_eq!(inputs, expected, "{g:?}");
            // Pixels that meet nothing belong to a region too: they are zero.
            let pixels = |regions: &[Region]| regions.iter().map(Region::pixels).sum::<usize>();
            assert_eq!(pixels(&g.outputs()), g.ho * g.wo, "{g:?}");
            assert_eq!(pixels(&g.inputs()), g.h * g.w, "{g:?}");
        }
    }

    #[test]
    fn the_inside_of_an_image_is_one_region() {
        let g = Geometry::new("", [1, 1, 32, 32], [1, 1, 3, 3], Conv2dSpec::new(1, 1)).unwrap();
        let mut pixels: Vec<usize> = g.outputs().iter().map(Region::pixels).collect();
        pixels.sort_unstable();
        assert_eq!(pixels, [1, 1, 1, 1, 30, 30, 30, 30, 900]);
    }
}
