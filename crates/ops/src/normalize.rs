//! L2 normalization of rows.

use candle_core::Tensor;

use crate::dense::{Dense, by_dtype, dims2, expect_shape, lend, tensor};
use crate::error::OpError;
use crate::simd::Float;

const OP: &str = "l2_normalize";
/// Norms below this are replaced by it (PyTorch `F.normalize`).
const EPS: f64 = 1e-12;

/// Divides each row of `x` `[N, C]` by its L2 norm, or by 1e-12 if that is larger
/// (PyTorch `F.normalize(x, dim=1)`).
///
/// # Errors
/// If `x` is not a matrix of f32 or f64.
pub fn l2_normalize(x: &Tensor) -> Result<Tensor, OpError> {
    by_dtype!(OP, x, forward(x))
}

/// The gradient of [`l2_normalize`]'s input `x` from the gradient `dy` of its output, both `[N, C]`.
///
/// # Errors
/// If the shapes do not fit.
pub fn l2_normalize_backward(x: &Tensor, dy: &Tensor) -> Result<Tensor, OpError> {
    expect_shape(OP, "dy", dy, x.dims())?;
    by_dtype!(OP, x, backward(x, dy))
}

fn norm<T: Float>(row: &[T]) -> f64 {
    row.iter().map(|v| v.f64() * v.f64()).sum::<f64>().sqrt()
}

fn forward<T: Float>(x: &Tensor) -> Result<Tensor, OpError> {
    let [n, c] = dims2(OP, "x", x)?;
    let x = Dense::rows(OP, x)?;
    let mut y = Vec::with_capacity(n * c);
    lend!(OP, T, [x] => for row in x.chunks_exact(c) {
        let norm = norm(row).max(EPS);
        y.extend(row.iter().map(|v| T::of(v.f64() / norm)));
    });
    tensor(OP, y, (n, c))
}

/// `dx = (dy − y·(y·dy))/‖x‖`; below the smallest norm the divisor is a constant, so `dx = dy/ε`.
fn backward<T: Float>(x: &Tensor, dy: &Tensor) -> Result<Tensor, OpError> {
    let [n, c] = dims2(OP, "x", x)?;
    let (x, dy) = (Dense::rows(OP, x)?, Dense::rows(OP, dy)?);
    let mut dx = Vec::with_capacity(n * c);
    lend!(OP, T, [x, dy] => for (row, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
        let norm = norm(row);
        let along = row.iter().zip(dy).map(|(x, dy)| x.f64() * dy.f64()).sum::<f64>();
        let along = if norm > EPS { along / (norm * norm) } else { 0.0 };
        let norm = norm.max(EPS);
        dx.extend(row.iter().zip(dy).map(|(x, dy)| T::of((dy.f64() - x.f64() * along) / norm)));
    });
    tensor(OP, dx, (n, c))
}
