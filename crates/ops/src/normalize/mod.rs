//! L2 normalization of rows.

mod gpu;

use candle_core::Tensor;

use crate::backend::on_gpu;
use crate::dense::{Dense, Unwritten, by_dtype, dims2, expect_shape, lend, tensor};
use crate::elementwise::for_each;
use crate::error::OpError;
use crate::simd::{Float, vectorize};

const OP: &str = "l2_normalize";
/// Norms below this are replaced by it (PyTorch `F.normalize`).
const EPS: f64 = 1e-12;
/// Sums that a dot product keeps: one AVX-512 register of f64.
const LANES: usize = 8;

/// Divides each row of `x` `[N, C]` by its L2 norm, or by 1e-12 if that is larger
/// (PyTorch `F.normalize(x, dim=1)`).
///
/// # Errors
/// If `x` is not a matrix of f32 or f64.
pub fn l2_normalize(x: &Tensor) -> Result<Tensor, OpError> {
    on_gpu!(OP, x, gpu::l2_normalize, x);
    by_dtype!(OP, x, forward(x))
}

/// The gradient of [`l2_normalize`]'s input `x` from the gradient `dy` of its output, both `[N, C]`.
///
/// # Errors
/// If the shapes do not fit.
pub fn l2_normalize_backward(x: &Tensor, dy: &Tensor) -> Result<Tensor, OpError> {
    expect_shape(OP, "dy", dy, x.dims())?;
    on_gpu!(OP, x, gpu::l2_normalize_backward, x, dy);
    by_dtype!(OP, x, backward(x, dy))
}

/// Σ a·b in f64: one sum for each lane of a vector, added at the end.
#[inline(always)]
fn dot<T: Float>(a: &[T], b: &[T]) -> f64 {
    let mut sums = [0.0; LANES];
    let (a, b) = (a.chunks(LANES), b.chunks(LANES));
    for (a, b) in a.zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a.f64() * b.f64();
        }
    }
    sums.iter().sum()
}

fn forward<T: Float>(x: &Tensor) -> Result<Tensor, OpError> {
    let [n, c] = dims2(OP, "x", x)?;
    let x = Dense::rows(OP, x)?;
    let mut y = Unwritten::new(n * c);
    lend!(OP, T, [x] => for_each(n * c, y.elements().chunks_mut(c.max(1)), |row, y| {
        let x = &x[row * c..(row + 1) * c];
        vectorize(|| {
            let norm = dot(x, x).sqrt().max(EPS);
            for (y, x) in y.iter_mut().zip(x) {
                y.write(T::of(x.f64() / norm));
            }
        });
    }));
    // SAFETY: every element of every row was written.
    tensor::<T>(OP, unsafe { y.written() }, (n, c))
}

/// `dx = (dy − y·(y·dy))/‖x‖`; below the smallest norm the divisor is a constant, so `dx = dy/ε`.
fn backward<T: Float>(x: &Tensor, dy: &Tensor) -> Result<Tensor, OpError> {
    let [n, c] = dims2(OP, "x", x)?;
    let (x, dy) = (Dense::rows(OP, x)?, Dense::rows(OP, dy)?);
    let mut dx = Unwritten::new(n * c);
    lend!(OP, T, [x, dy] => for_each(n * c, dx.elements().chunks_mut(c.max(1)), |row, dx| {
        let (x, dy) = (&x[row * c..(row + 1) * c], &dy[row * c..(row + 1) * c]);
        vectorize(|| {
            let norm = dot(x, x).sqrt();
            let along = if norm > EPS { dot(x, dy) / (norm * norm) } else { 0.0 };
            let norm = norm.max(EPS);
            for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
                dx.write(T::of((dy.f64() - x.f64() * along) / norm));
            }
        });
    }));
    // SAFETY: every element of every row was written.
    tensor::<T>(OP, unsafe { dx.written() }, (n, c))
}
