//! The mean over the pixels of an image.

use candle_core::{DType, Tensor};

use super::gpu;
use crate::backend::on_gpu;
use crate::dense::{
    Dense, Unwritten, by_dtype, channels_last, dims4, expect_shape, four, lend, tensor,
};
use crate::elementwise::for_each;
use crate::error::OpError;
use crate::gpu::expect_dtype;
use crate::simd::{Float, vectorize};

const OP: &str = "global_average_pool";

/// The mean over the pixels of `x` `[N, C, H, W]`; gives `[N, C]`, on a
/// GPU always f32.
///
/// # Errors
/// If `x` is not `[N, C, H, W]`.
pub fn global_average_pool(x: &Tensor) -> Result<Tensor, OpError> {
    dims4(OP, "x", x)?;
    on_gpu!(OP, x, gpu::average, x);
    by_dtype!(OP, x, average(x))
}

/// The gradient of [`global_average_pool`]'s input of shape `dims` and type `dtype` from `dy` `[N, C]`,
/// which on the CPU has that type too.
///
/// # Errors
/// If the shapes or types do not fit.
pub fn global_average_pool_backward(
    dims: &[usize],
    dy: &Tensor,
    dtype: DType,
) -> Result<Tensor, OpError> {
    let dims = four(OP, "dims", dims)?;
    expect_shape(OP, "dy", dy, &dims[..2])?;
    on_gpu!(OP, dy, gpu::average_backward, dims, dy, dtype);
    expect_dtype(OP, "dy", dy, dtype)?;
    by_dtype!(OP, dy, spread(dims, dy))
}

fn average<T: Float>(x: &Tensor) -> Result<Tensor, OpError> {
    let [n, c, h, w] = dims4(OP, "x", x)?;
    let x = Dense::channels_last(OP, x)?;
    let mut y = vec![T::zero(); n * c];
    lend!(OP, T, [x] => for_each(x.len(), y.chunks_mut(c.max(1)), |image, y| {
        let x = &x[image * h * w * c..(image + 1) * h * w * c];
        vectorize(|| {
            for pixel in x.chunks_exact(c) {
                for (y, x) in y.iter_mut().zip(pixel) {
                    *y += *x;
                }
            }
            for y in y {
                *y /= pixels(h, w);
            }
        });
    }));
    tensor(OP, y, (n, c))
}

fn spread<T: Float>([n, c, h, w]: [usize; 4], dy: &Tensor) -> Result<Tensor, OpError> {
    let dy = Dense::rows(OP, dy)?;
    let mut dx = Unwritten::new(n * h * w * c);
    lend!(OP, T, [dy] => {
        let of_image = |image: usize, dx: &mut [std::mem::MaybeUninit<T>]| {
            let of_pixel: Vec<T> =
                dy[image * c..(image + 1) * c].iter().map(|dy| *dy / pixels(h, w)).collect();
            for pixel in dx.chunks_exact_mut(c) {
                pixel.write_copy_of_slice(&of_pixel);
            }
        };
        for_each(n * h * w * c, dx.elements().chunks_mut((h * w * c).max(1)), of_image);
    });
    // SAFETY: the pixels of all images were written.
    channels_last(OP, unsafe { dx.written() }, [n, c, h, w])
}

fn pixels<T: Float>(h: usize, w: usize) -> T {
    T::of(f64::from(u32::try_from(h * w).unwrap_or(u32::MAX)))
}
