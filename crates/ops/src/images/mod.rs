//! Images on their way into an encoder.

mod augment;
mod augment_gpu;
mod gpu;
mod steps;

use candle_core::{DType, Tensor};

pub use self::augment::augment_images;
pub use self::steps::ImageStep;
use crate::backend::on_gpu;
use crate::dense::{Dense, Unwritten, channels_last, dims4, lend, shape};
use crate::elementwise::{CHUNK, for_each};
use crate::error::OpError;
use crate::simd::Float;

const OP: &str = "normalize_images";

/// u8 pixels `[N, H, W, 3]` as normalized activations `[N, 3, H, W]`, channels last in memory, of the
/// given type: `(x / 255 − mean) / std`, computed in f32 (torchvision `ToTensor`, `Normalize`).
///
/// # Errors
/// If the pixels are not u8 or have no three channels, or the type is none of activations.
pub fn normalize_images(
    pixels: &Tensor,
    mean: [f32; 3],
    std: [f32; 3],
    dtype: DType,
) -> Result<Tensor, OpError> {
    let [n, h, w, c] = dims4(OP, "pixels", pixels)?;
    if c != 3 || pixels.dtype() != DType::U8 {
        let expected = format!("[N, H, W, 3] of u8 and not {:?}", pixels.dtype());
        return Err(shape(OP, "pixels", expected, pixels.dims()));
    }
    on_gpu!(OP, pixels, gpu::normalize_images, pixels, [mean, std], dtype);
    let value =
        |channel: usize, sample: usize| (sample as f32 / 255.0 - mean[channel]) / std[channel];
    let table = |channel| -> [f32; 256] { std::array::from_fn(|sample| value(channel, sample)) };
    let tables = std::array::from_fn(table);
    match dtype {
        DType::F32 => look_up::<f32>(pixels, &tables, [n, c, h, w]),
        DType::F64 => look_up::<f64>(pixels, &tables, [n, c, h, w]),
        got => Err(OpError::DType { op: OP, tensor: "dtype", got }),
    }
}

fn look_up<T: Float>(
    pixels: &Tensor,
    tables: &[[f32; 256]; 3],
    dims: [usize; 4],
) -> Result<Tensor, OpError> {
    // Whole pixels.
    const PART: usize = CHUNK / 3 * 3;
    let pixels = Dense::rows(OP, pixels)?;
    let mut numbers = Unwritten::<T>::new(dims.iter().product());
    lend!(OP, u8, [pixels] => {
        let parts = numbers.elements().chunks_mut(PART).zip(pixels.chunks(PART));
        for_each(pixels.len(), parts, |_, (numbers, samples)| {
            for (pixel, rgb) in numbers.chunks_exact_mut(3).zip(samples.chunks_exact(3)) {
                for ((number, sample), table) in pixel.iter_mut().zip(rgb).zip(tables) {
                    number.write(T::of(f64::from(table[usize::from(*sample)])));
                }
            }
        });
    });
    // SAFETY: the parts are made of whole pixels and cover all of them.
    channels_last(OP, unsafe { numbers.written() }, dims)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    const MEAN: [f32; 3] = [0.5, 0.25, 0.0];
    const STD: [f32; 3] = [0.5, 0.25, 1.0];

    #[test]
    fn each_channel_has_its_mean_and_deviation() {
        let pixels = Tensor::new(&[[[[0_u8, 0, 0], [255, 255, 51]]]], &Device::Cpu).unwrap();
        let y = normalize_images(&pixels, MEAN, STD, DType::F64).unwrap();
        assert_eq!(y.dims(), [1, 3, 1, 2]);
        let y = y.permute((0, 2, 3, 1)).unwrap().flatten_all().unwrap();
        let expected = [-1.0, -1.0, 0.0, 1.0, 3.0, f64::from(0.2_f32)];
        assert_eq!(y.to_vec1::<f64>().unwrap(), expected);
    }

    #[test]
    fn many_pixels_are_those_of_few() {
        let samples: Vec<u8> = (0..3 * 120 * 110_u32).map(|i| (i * i % 251) as u8).collect();
        let pixels = Tensor::from_vec(samples, (1, 120, 110, 3), &Device::Cpu).unwrap();
        let all = normalize_images(&pixels, MEAN, STD, DType::F32).unwrap();
        for row in [0, 60, 119] {
            let part = pixels.narrow(1, row, 1).unwrap();
            let part = normalize_images(&part, MEAN, STD, DType::F32).unwrap();
            let of_all = all.narrow(2, row, 1).unwrap();
            let numbers = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(numbers(&part), numbers(&of_all));
        }
    }

    #[test]
    fn what_is_no_image_is_named() {
        let zeros = |dims: &[usize], dtype| Tensor::zeros(dims, dtype, &Device::Cpu).unwrap();
        for (pixels, dtype, expected) in [
            (zeros(&[1, 2, 2, 3], DType::F32), DType::F32, "[N, H, W, 3] of u8 and not F32"),
            (zeros(&[1, 2, 2, 4], DType::U8), DType::F32, "has shape [1, 2, 2, 4]"),
            (zeros(&[1, 2, 2, 3], DType::U8), DType::BF16, "`dtype` is BF16"),
        ] {
            let error = normalize_images(&pixels, MEAN, STD, dtype).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
