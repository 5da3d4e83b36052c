//! Smooth random fields: random values on a lattice, blended in between.

use moco_rng::Stream;

/// Value noise over a square of cells; outside it the border value continues.
pub(crate) struct ValueNoise {
    n_cells: usize,
    nodes: Vec<f64>,
}

impl ValueNoise {
    /// A field over `[0, n_cells]` in both directions, with values in `[-1, 1)`.
    pub(crate) fn new(stream: &mut Stream, n_cells: usize) -> Self {
        let n_nodes = (n_cells + 1) * (n_cells + 1);
        Self { n_cells, nodes: (0..n_nodes).map(|_| stream.range(-1.0, 1.0)).collect() }
    }

    pub(crate) fn at(&self, x: f64, y: f64) -> f64 {
        let ((column, right), (row, below)) = (self.split(x), self.split(y));
        let node = |row: usize, column: usize| self.nodes[row * (self.n_cells + 1) + column];
        let blend = |a: f64, b: f64, weight: f64| a + (b - a) * weight;
        let upper = blend(node(row, column), node(row, column + 1), right);
        let lower = blend(node(row + 1, column), node(row + 1, column + 1), right);
        blend(upper, lower, below)
    }

    /// The cell of a coordinate and the smooth weight of its far side.
    fn split(&self, coordinate: f64) -> (usize, f64) {
        let n_cells = self.n_cells as f64;
        let inside = coordinate.clamp(0.0, n_cells);
        let cell = inside.floor().min(n_cells - 1.0);
        let t = inside - cell;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let index = cell as usize;
        (index, t * t * (3.0 - 2.0 * t))
    }
}

#[cfg(test)]
mod tests {
    use moco_rng::{At, Purpose, Seed};

    use super::*;

    fn field() -> ValueNoise {
        ValueNoise::new(&mut Seed(1).stream(Purpose::Textures, At::default()), 11)
    }

    #[test]
    fn nodes_are_hit_and_middles_are_means() {
        let field = field();
        let node = |row: usize, column: usize| field.nodes[row * 12 + column];
        assert_eq!(field.at(3.0, 2.0), node(2, 3));
        assert_eq!(field.at(11.0, 11.0), node(11, 11));
        assert!((field.at(3.5, 2.0) - (node(2, 3) + node(2, 4)) / 2.0).abs() < 1e-15);
        assert!((field.at(3.0, 2.5) - (node(2, 3) + node(3, 3)) / 2.0).abs() < 1e-15);
        assert_eq!(field.at(-4.0, 99.0), node(11, 0));
    }

    #[test]
    fn values_fill_the_range() {
        let nodes = field().nodes;
        assert!(nodes.iter().all(|value| (-1.0..1.0).contains(value)));
        assert!(nodes.iter().any(|value| *value < -0.9) && nodes.iter().any(|value| *value > 0.9));
    }
}
