//! Sizes of a convolution as a library's descriptors take them.

use crate::conv::Geometry;

/// `[n, c, h, w]` of x and y, `[c_out, c, k, k]` of the weight, whatever the order in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) x: [i32; 4],
    pub(crate) weight: [i32; 4],
    pub(crate) y: [i32; 4],
    pub(crate) padding: i32,
    pub(crate) stride: i32,
    pub(crate) dilation: i32,
    pub(crate) groups: i32,
}

impl Sizes {
    pub(crate) fn of(g: &Geometry) -> Result<Self, String> {
        let size = |size: usize| {
            i32::try_from(size).map_err(|_too_large| {
                format!("{size} is too large for the library; take fewer images a step")
            })
        };
        let four = |dims: [usize; 4]| {
            // The library counts elements in 32 bits.
            size(dims.iter().product())?;
            let [a, b, c, d] = dims;
            Ok::<_, String>([size(a)?, size(b)?, size(c)?, size(d)?])
        };
        Ok(Self {
            x: four([g.n, g.c, g.h, g.w])?,
            weight: four([g.co, g.c_group(), g.k, g.k])?,
            y: four([g.n, g.co, g.ho, g.wo])?,
            padding: size(g.spec.padding)?,
            stride: size(g.spec.stride)?,
            dilation: size(g.spec.dilation)?,
            groups: size(g.spec.groups)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Conv2dSpec;

    #[test]
    fn descriptors_have_logical_sizes() {
        let spec = Conv2dSpec::new(2, 1);
        let geometry = Geometry::new("", [2, 4, 9, 9], [8, 4, 3, 3], spec).unwrap();
        let sizes = Sizes::of(&geometry).unwrap();
        assert_eq!((sizes.x, sizes.weight, sizes.y), ([2, 4, 9, 9], [8, 4, 3, 3], [2, 8, 5, 5]));
        assert_eq!((sizes.padding, sizes.stride, sizes.dilation, sizes.groups), (1, 2, 1, 1));
        let mut huge = geometry;
        huge.n = 1 << 31;
        assert!(Sizes::of(&huge).unwrap_err().contains("too large"));
        // Each dimension fits, all of them together do not.
        huge.n = 1 << 24;
        assert!(Sizes::of(&huge).unwrap_err().contains("take fewer images a step"));
    }
}
