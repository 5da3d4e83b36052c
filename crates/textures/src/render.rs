//! Draws one texture: a pattern under the nuisances that a good encoder must see through.
//!
//! The order of the random draws and every arithmetic step are the data set's definition: a change
//! shows as other checksums in the committed manifest. Functions whose last bit depends on the platform's
//! library come from `libm`.

use std::f64::consts::TAU;

use moco_rng::{At, Purpose, Seed, Stream};

use crate::{
    noise::ValueNoise,
    pattern::{CLASSES, PERIOD, Pattern},
};

/// Height and width of a texture in pixels.
pub const SIZE: u32 = 48;
/// Drawn points per pixel and direction, averaged.
const OVERSAMPLING: u32 = 2;
/// How far the warp moves a point at most, in cells of the pattern.
const WARP: f64 = 0.3;
/// Cells of the warp's own noise field across the image.
const WARP_CELLS: usize = 5;

/// One image of the data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texture {
    /// `[SIZE, SIZE, 3]`, u8, red first.
    pub pixels: Vec<u8>,
    /// Position of its class in [`CLASSES`].
    pub label: u32,
}

/// The texture with this index; a pure function. Labels go round the classes.
#[must_use]
pub fn render(seed: Seed, index: u64) -> Texture {
    let mut stream = seed.stream(Purpose::Textures, At::index(index));
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is less than 16")]
    let label = (index % CLASSES.len() as u64) as u32;
    let geometry = Geometry::draw(&mut stream, label);
    let colors = draw_colors(&mut stream);
    let light = Light::draw(&mut stream);
    let noise_sigma = stream.range(0.02, 0.08);
    let mut pixels = Vec::with_capacity((SIZE * SIZE * 3) as usize);
    for row in 0..SIZE {
        for column in 0..SIZE {
            let coverage = geometry.coverage(row, column);
            let brightness = light.at(center(column, SIZE), center(row, SIZE));
            for (ink, paper) in colors[0].iter().zip(colors[1]) {
                let color = paper + (ink - paper) * coverage;
                pixels.push(to_byte(color * brightness + noise_sigma * stream.normal()));
            }
        }
    }
    Texture { pixels, label }
}

/// Where the pattern lies and how it is bent.
struct Geometry {
    pattern: Pattern,
    /// Cells per half image.
    frequency: f64,
    /// In cells.
    phase: [f64; 2],
    /// In half images.
    center: [f64; 2],
    mirror: f64,
    warp: [ValueNoise; 2],
}

impl Geometry {
    fn draw(stream: &mut Stream, label: u32) -> Self {
        let pattern = Pattern::of(label, stream);
        let scale = libm::exp(stream.range(libm::log(0.85), libm::log(1.18)));
        let base = match pattern {
            Pattern::Lattice(_) => 3.3,
            Pattern::Centered(_) => 0.83 * 3.3,
            Pattern::Blotches(_) => 1.7 * 3.3,
        };
        Self {
            pattern,
            frequency: base * scale,
            phase: [stream.range(0.0, PERIOD), stream.range(0.0, PERIOD)],
            center: [stream.range(-0.5, 0.5), stream.range(-0.5, 0.5)],
            mirror: if stream.bernoulli(0.5) { -1.0 } else { 1.0 },
            warp: [ValueNoise::new(stream, WARP_CELLS), ValueNoise::new(stream, WARP_CELLS)],
        }
    }

    /// The part of a pixel that has the first color.
    fn coverage(&self, row: u32, column: u32) -> f64 {
        let mut n_inside = 0_u32;
        for sub_row in 0..OVERSAMPLING {
            for sub_column in 0..OVERSAMPLING {
                let u = center(column * OVERSAMPLING + sub_column, SIZE * OVERSAMPLING);
                let v = center(row * OVERSAMPLING + sub_row, SIZE * OVERSAMPLING);
                n_inside += u32::from(self.inside(self.mirror * u, v));
            }
        }
        f64::from(n_inside) / f64::from(OVERSAMPLING * OVERSAMPLING)
    }

    /// `u`, `v`: a point in half images from the middle, in `[-1, 1]`.
    fn inside(&self, u: f64, v: f64) -> bool {
        let half = 0.5 * WARP_CELLS as f64;
        let bend = |field: &ValueNoise| WARP * field.at(half * (u + 1.0), half * (v + 1.0));
        let (bend_x, bend_y) = (bend(&self.warp[0]), bend(&self.warp[1]));
        match &self.pattern {
            Pattern::Lattice(inside) => inside(
                self.frequency * u + self.phase[0] + bend_x,
                self.frequency * v + self.phase[1] + bend_y,
            ),
            Pattern::Centered(inside) => inside(
                self.frequency * (u - self.center[0]) + bend_x,
                self.frequency * (v - self.center[1]) + bend_y,
            ),
            // The field has no period, so the phase only has to move the nodes by up to one cell.
            Pattern::Blotches(field) => {
                let x = self.frequency * (u + 1.0) + self.phase[0] / PERIOD + bend_x;
                let y = self.frequency * (v + 1.0) + self.phase[1] / PERIOD + bend_y;
                field.at(x, y) > 0.0
            }
        }
    }
}

/// A linear gradient of brightness.
struct Light {
    slope: [f64; 2],
}

impl Light {
    fn draw(stream: &mut Stream) -> Self {
        let (direction, strength) = (stream.range(0.0, TAU), stream.range(0.0, 0.8));
        Self { slope: [strength * libm::cos(direction), strength * libm::sin(direction)] }
    }

    fn at(&self, u: f64, v: f64) -> f64 {
        1.0 + self.slope[0] * u + self.slope[1] * v
    }
}

/// Two colors that differ in value by at least 0.35, so that every pattern is visible.
fn draw_colors(stream: &mut Stream) -> [[f64; 3]; 2] {
    let first = stream.range(0.1, 0.9);
    let step = stream.range(0.35, 0.55);
    let second = if first < 0.5 { first + step } else { (first - step).max(0.0) };
    [first, second].map(|value| {
        let (hue, saturation) = (stream.uniform(), stream.range(0.0, 0.5));
        hsv_to_rgb(hue, saturation, value)
    })
}

/// All in `[0, 1]`.
fn hsv_to_rgb(hue: f64, saturation: f64, value: f64) -> [f64; 3] {
    [5.0, 3.0, 1.0].map(|offset| {
        let sector = offset + 6.0 * hue;
        let k = sector - 6.0 * (sector / 6.0).floor();
        value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0)
    })
}

/// The middle of a pixel in half images from the middle of `n` pixels.
fn center(pixel: u32, n: u32) -> f64 {
    (2.0 * f64::from(pixel) + 1.0) / f64::from(n) - 1.0
}

fn to_byte(x: f64) -> u8 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to a byte"
    )]
    let byte = (x.clamp(0.0, 1.0) * 255.0 + 0.5) as u8;
    byte
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(index: u64) -> Stream {
        Seed(2).stream(Purpose::Textures, At::index(index))
    }

    #[test]
    fn a_texture_is_a_function_of_seed_and_index() {
        assert_eq!(render(Seed(1), 7), render(Seed(1), 7));
        assert_ne!(render(Seed(1), 7).pixels, render(Seed(2), 7).pixels);
        assert_ne!(render(Seed(1), 7).pixels, render(Seed(1), 7 + 16).pixels);
        let labels: Vec<u32> = (14..34).map(|index| render(Seed(1), index).label).collect();
        assert_eq!(labels, (14..34).map(|index| index % 16).collect::<Vec<_>>());
    }

    #[test]
    fn nuisances_fill_their_ranges() {
        let drawn: Vec<Geometry> = (0..400).map(|i| Geometry::draw(&mut stream(i), 0)).collect();
        let check = |of: &dyn Fn(&Geometry) -> f64, low: f64, high: f64| {
            let values: Vec<f64> = drawn.iter().map(of).collect();
            let margin = 0.03 * (high - low);
            assert!(values.iter().all(|x| (low..=high).contains(x)));
            assert!(values.iter().any(|x| *x < low + margin), "none near {low}");
            assert!(values.iter().any(|x| *x > high - margin), "none near {high}");
        };
        check(&|g| g.frequency, 3.3 * 0.85, 3.3 * 1.18);
        check(&|g| g.phase[0], 0.0, 4.0);
        check(&|g| g.phase[1], 0.0, 4.0);
        check(&|g| g.center[0], -0.5, 0.5);
        check(&|g| g.center[1], -0.5, 0.5);
        check(&|g| g.mirror, -1.0, 1.0);
        check(&|g| g.warp[0].at(1.0, 1.0), -1.0, 1.0);
        check(&|g| g.warp[1].at(1.0, 1.0), -1.0, 1.0);
    }

    #[test]
    fn rings_and_rays_are_larger_and_blotches_finer() {
        let frequency = |label| Geometry::draw(&mut stream(0), label).frequency;
        assert!((frequency(3) / frequency(0) - 0.83).abs() < 1e-12);
        assert!((frequency(11) / frequency(0) - 0.83).abs() < 1e-12);
        // The blotches' own field comes first in the stream, so another scale is drawn.
        assert!((3.3 * 1.7 * 0.85..3.3 * 1.7 * 1.18).contains(&frequency(4)));
    }

    #[test]
    fn mirroring_reverses_the_columns() {
        let plain = Geometry { mirror: 1.0, ..Geometry::draw(&mut stream(3), 8) };
        let mirrored = Geometry { mirror: -1.0, ..Geometry::draw(&mut stream(3), 8) };
        let differs = |(row, column): &(u32, u32)| {
            // The two sides of the image round differently by one unit in the last place.
            plain.coverage(*row, *column) != mirrored.coverage(*row, SIZE - 1 - column)
        };
        let pixels = (0..SIZE).flat_map(|row| (0..SIZE).map(move |column| (row, column)));
        assert!(pixels.filter(differs).count() < 3);
    }

    #[test]
    fn coverage_is_the_mean_of_four_points() {
        let geometry = Geometry::draw(&mut stream(0), 1);
        let mut seen = [0_u32; 5];
        for row in 0..SIZE {
            for column in 0..SIZE {
                let quarters = geometry.coverage(row, column) * 4.0;
                seen[(0..5).find(|n| f64::from(*n) == quarters).unwrap() as usize] += 1;
            }
        }
        // Checks of 3.6 pixels: inner pixels have one color, the others lie on an edge.
        assert!(seen.iter().all(|n| *n > 50), "{seen:?}");
    }

    #[test]
    fn colors_are_apart_and_in_range() {
        for index in 0..500 {
            let colors = draw_colors(&mut stream(index));
            let [first, second] = colors.map(|color| color.iter().copied().fold(0.0, f64::max));
            let distance = (first - second).abs();
            assert!((0.349..0.551).contains(&distance), "{first} and {second}");
            assert!(colors.iter().flatten().all(|x| (0.0..=1.05).contains(x)));
        }
    }

    #[test]
    fn hsv_is_converted_as_on_the_color_wheel() {
        let cases = [
            ((0.0, 1.0, 1.0), [1.0, 0.0, 0.0]),
            ((1.0 / 6.0, 1.0, 1.0), [1.0, 1.0, 0.0]),
            ((2.0 / 6.0, 1.0, 0.8), [0.0, 0.8, 0.0]),
            ((4.0 / 6.0, 0.5, 1.0), [0.5, 0.5, 1.0]),
            ((0.3, 0.0, 0.4), [0.4, 0.4, 0.4]),
        ];
        for ((hue, saturation, value), expected) in cases {
            let got = hsv_to_rgb(hue, saturation, value);
            assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{got:?}");
        }
    }

    #[test]
    fn light_is_a_plane_of_mean_one() {
        let light = Light { slope: [0.3, -0.4] };
        assert_eq!(light.at(0.0, 0.0), 1.0);
        assert!((light.at(1.0, -1.0) - 1.7).abs() < 1e-12);
        let strengths: Vec<f64> = (0..300)
            .map(|i| Light::draw(&mut stream(i)).slope)
            .map(|[x, y]| libm::sqrt(x * x + y * y))
            .collect();
        assert!(strengths.iter().all(|s| (0.0..0.8).contains(s)));
        let mean = strengths.iter().sum::<f64>() / 300.0;
        assert!((mean - 0.4).abs() < 0.04, "mean strength {mean}");
    }

    #[test]
    fn bytes_are_rounded_and_clamped() {
        let cases =
            [(-0.2, 0), (0.0, 0), (0.00195, 0), (0.00197, 1), (0.5, 128), (1.0, 255), (3.0, 255)];
        for (x, byte) in cases {
            assert_eq!(to_byte(x), byte, "{x}");
        }
        assert_eq!((center(0, 4), center(3, 4)), (-0.75, 0.75));
    }
}
