//! The 16 classes: which of two colors a point of the plane has.

use std::f64::consts::TAU;

use moco_rng::Stream;

use crate::noise::ValueNoise;

/// Names of the classes, in the order of their labels.
pub const CLASSES: [&str; 16] = [
    "stripes",
    "checks",
    "dots",
    "rings",
    "blotches",
    "zigzag",
    "grid",
    "waves",
    "bricks",
    "pluses",
    "triangles",
    "rays",
    "ring lattice",
    "scales",
    "dashes",
    "diamonds",
];

/// Every pattern on the plane repeats after this many cells in both directions.
pub(crate) const PERIOD: f64 = 4.0;

/// Enough for the highest frequency: 2 half images of 3.9 × 1.7 cells, the phase and the warp.
const BLOTCH_CELLS: usize = 15;

/// A pattern of one class.
pub(crate) enum Pattern {
    /// Repeats over the plane; the function takes a point in cells.
    Lattice(fn(f64, f64) -> bool),
    /// Has a center; the function takes a point in cells from there.
    Centered(fn(f64, f64) -> bool),
    /// The sign of a noise field, which takes a point in cells from the upper left corner.
    Blotches(ValueNoise),
}

impl Pattern {
    /// The pattern of a class; labels beyond the last begin again.
    pub(crate) fn of(label: u32, stream: &mut Stream) -> Self {
        match label % 16 {
            0 => Self::Lattice(|_, y| fract(y) < 0.5),
            1 => Self::Lattice(|x, y| (fract(x) < 0.5) != (fract(y) < 0.5)),
            2 => Self::Lattice(|x, y| length(middle(x), middle(y)) < 0.32),
            3 => Self::Centered(|x, y| fract(length(x, y)) < 0.5),
            4 => Self::Blotches(ValueNoise::new(stream, BLOTCH_CELLS)),
            5 => Self::Lattice(|x, y| fract(y + middle(x).abs()) < 0.5),
            6 => Self::Lattice(|x, y| fract(x) < 0.24 || fract(y) < 0.24),
            7 => Self::Lattice(|x, y| fract(y + 0.2 * libm::sin(TAU * 0.75 * x)) < 0.5),
            8 => Self::Lattice(bricks),
            9 => Self::Lattice(plus),
            10 => Self::Lattice(triangles),
            11 => Self::Centered(rays),
            12 => Self::Lattice(|x, y| (0.2..0.4).contains(&length(middle(x), middle(y)))),
            13 => Self::Lattice(scales),
            14 => Self::Lattice(dashes),
            _ => Self::Lattice(|x, y| (0.25..0.45).contains(&(middle(x).abs() + middle(y).abs()))),
        }
    }
}

fn bricks(x: f64, y: f64) -> bool {
    let row = (1.5 * y).floor();
    fract(1.5 * y) > 0.2 && fract(x + half_if_odd(row)) > 0.14
}

fn plus(x: f64, y: f64) -> bool {
    let (long, short) =
        (middle(x).abs().max(middle(y).abs()), middle(x).abs().min(middle(y).abs()));
    long < 0.42 && short < 0.14
}

fn triangles(x: f64, y: f64) -> bool {
    let x = middle(x + half_if_odd(y.floor()));
    let from_tip = fract(y) - 0.08;
    from_tip < 0.84 && x.abs() < 0.55 * from_tip
}

fn rays(x: f64, y: f64) -> bool {
    const N_RAYS: f64 = 10.0;
    fract(N_RAYS * libm::atan2(y, x) / TAU) < 0.5
}

/// Discs in staggered rows, each row laid over the one above it; the rims show.
fn scales(x: f64, y: f64) -> bool {
    const RADIUS: f64 = 0.56;
    let row = (2.0 * y).floor();
    for row in [row + 1.0, row, row - 1.0, row - 2.0] {
        let from_center = length(middle(x + half_if_odd(row)), y - 0.5 * row);
        if from_center < RADIUS {
            return from_center < 0.75 * RADIUS;
        }
    }
    false
}

fn dashes(x: f64, y: f64) -> bool {
    (0.35..0.65).contains(&fract(y)) && fract(0.75 * x + half_if_odd(y.floor())) < 0.6
}

/// The distance above the next lower integer, in `[0, 1)`.
fn fract(x: f64) -> f64 {
    x - x.floor()
}

/// The signed distance from the middle of the cell, in `[-0.5, 0.5)`.
fn middle(x: f64) -> f64 {
    fract(x) - 0.5
}

fn length(x: f64, y: f64) -> f64 {
    libm::sqrt(x * x + y * y)
}

fn half_if_odd(row: f64) -> f64 {
    fract(0.5 * row)
}

#[cfg(test)]
mod tests {
    use moco_rng::{At, Purpose, Seed};

    use super::*;

    fn pattern(label: u32) -> Pattern {
        Pattern::of(label, &mut Seed(0).stream(Purpose::Textures, At::default()))
    }

    fn lattice(label: u32) -> Option<fn(f64, f64) -> bool> {
        match pattern(label) {
            Pattern::Lattice(inside) => Some(inside),
            Pattern::Centered(_) | Pattern::Blotches(_) => None,
        }
    }

    /// Points off the edges, so that rounding cannot flip a color.
    fn points() -> impl Iterator<Item = (f64, f64)> {
        (0..400).map(|i| (0.013 + 0.2 * f64::from(i % 20), 0.017 + 0.2 * f64::from(i / 20)))
    }

    #[test]
    fn lattices_repeat_after_the_period() {
        for inside in (0..16).filter_map(lattice) {
            let same = |(x, y)| {
                inside(x, y) == inside(x + PERIOD, y) && inside(x, y) == inside(x, y - PERIOD)
            };
            assert!(points().all(same));
        }
    }

    #[test]
    fn both_colors_are_common_in_every_class() {
        for label in 0..16 {
            let inside = match pattern(label) {
                Pattern::Lattice(inside) | Pattern::Centered(inside) => inside,
                Pattern::Blotches(_) => continue,
            };
            let n = points().filter(|(x, y)| inside(*x, *y)).count();
            assert!((60..=340).contains(&n), "{}: {n} of 400", CLASSES[label as usize]);
        }
    }

    #[test]
    fn points_have_the_color_of_the_drawing() {
        let at = |label, x, y| match pattern(label) {
            Pattern::Lattice(inside) | Pattern::Centered(inside) => inside(x, y),
            Pattern::Blotches(_) => panic!("blotches need a field"),
        };
        // (label, a point inside, a point outside)
        let cases = [
            (0, (0.3, 0.2), (0.3, 0.7)),
            (1, (0.2, 0.7), (0.7, 0.7)),
            (2, (0.5, 0.5), (0.05, 0.05)),
            (3, (0.0, 1.2), (1.7, 0.0)),
            (5, (0.5, 0.3), (0.0, 0.3)),
            (6, (0.1, 0.5), (0.6, 0.5)),
            (7, (0.0, 0.45), (0.333_333, 0.45)),
            (8, (0.5, 0.4), (0.5, 0.05)),
            (9, (0.5, 0.85), (0.8, 0.8)),
            (10, (0.5, 0.5), (0.95, 0.3)),
            (11, (1.0, 0.1), (1.0, -0.1)),
            (12, (0.8, 0.5), (0.5, 0.5)),
            (13, (0.5, 0.2), (0.5, 0.45)),
            (14, (0.3, 0.5), (0.3, 0.1)),
            (15, (0.5, 0.85), (0.5, 0.5)),
        ];
        for (label, (x, y), (x_out, y_out)) in cases {
            assert!(at(label, x, y), "{}", CLASSES[label as usize]);
            assert!(!at(label, x_out, y_out), "{}", CLASSES[label as usize]);
        }
    }
}
