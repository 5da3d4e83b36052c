//! Images from the host's memory to where an encoder computes.

use candle_core::{DType, Device, Tensor};

use crate::error::{InOp, OpError};
use crate::images::{ImageStep, augment_images, normalize_images};
#[cfg(feature = "cuda")]
use crate::{
    cuda::transfers::{Buffer, Transfers},
    gpu::uploads::Uploads,
};

const OP: &str = "uploading images";

/// Brings u8 images to a device as normalized activations (see [`normalize_images`]). On a GPU the pixels
/// travel through pinned memory on a stream of their own while the device computes.
#[derive(Debug)]
pub struct ImageUpload {
    how: How,
    place: Place,
}

#[derive(Debug, Clone, Copy)]
struct How {
    mean: [f32; 3],
    std: [f32; 3],
    dtype: DType,
}

#[derive(Debug)]
enum Place {
    Host,
    #[cfg(feature = "cuda")]
    Gpu(Uploads<Transfers>),
}

/// Images that may still be on their way.
#[derive(Debug)]
pub struct ArrivingImages(Arriving);

#[derive(Debug)]
enum Arriving {
    Here(Tensor),
    /// Pixels, and what is to become of them.
    Unfinished(Tensor, Steps),
    #[cfg(feature = "cuda")]
    OnTheWay(Buffer, [usize; 4], Steps),
}

type Steps = Vec<Vec<ImageStep>>;

impl ImageUpload {
    /// Uploads to `device`, for activations of type `dtype`.
    ///
    /// # Errors
    /// If the device cannot take uploads.
    pub fn new(device: &Device, [mean, std]: [[f32; 3]; 2], dtype: DType) -> Result<Self, OpError> {
        let how = How { mean, std, dtype };
        let place = match device {
            Device::Cpu => Place::Host,
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => Place::Gpu(Uploads::new(Transfers::new(device)?)),
            other => {
                let message = format!("no upload to {:?}", other.location());
                return Err(candle_core::Error::Msg(message)).in_op(OP);
            }
        };
        Ok(Self { how, place })
    }

    /// Starts the upload of images `[N, H, W, 3]`, from any thread. `steps` are those that a GPU is to do
    /// to each ([`augment_images`]); none at all for images that are finished, which are normalized here
    /// where the device is the CPU, unless they become bf16.
    ///
    /// # Errors
    /// If there is no room or the number of pixels is another.
    pub fn start(
        &self,
        pixels: Vec<u8>,
        [n, h, w]: [usize; 3],
        steps: Vec<Vec<ImageStep>>,
    ) -> Result<ArrivingImages, OpError> {
        let dims = [n, h, w, 3];
        match &self.place {
            Place::Host => {
                let pixels = Tensor::from_vec(pixels, &dims, &Device::Cpu).in_op(OP)?;
                // bf16 is a GPU's; whether one is emulated is known to the thread that computes.
                Ok(ArrivingImages(if steps.is_empty() && self.how.dtype != DType::BF16 {
                    Arriving::Here(self.normalize(&pixels)?)
                } else {
                    Arriving::Unfinished(pixels, steps)
                }))
            }
            #[cfg(feature = "cuda")]
            Place::Gpu(uploads) => {
                if pixels.len() != dims.iter().product::<usize>() {
                    let got = [pixels.len()];
                    return Err(crate::dense::shape(OP, "pixels", format!("{dims:?}"), &got));
                }
                Ok(ArrivingImages(Arriving::OnTheWay(uploads.start(&pixels)?, dims, steps)))
            }
        }
    }

    /// The images as `[N, 3, H, W]`, from the thread that computes; waits for nothing but queues it.
    ///
    /// # Errors
    /// If the device fails.
    pub fn finish(&self, images: ArrivingImages) -> Result<Tensor, OpError> {
        match images.0 {
            Arriving::Here(images) => Ok(images),
            Arriving::Unfinished(pixels, steps) => self.augment(&pixels, &steps),
            #[cfg(feature = "cuda")]
            Arriving::OnTheWay(buffer, dims, steps) => match &self.place {
                Place::Host => {
                    let message = "images on their way to another device".into();
                    Err(candle_core::Error::Msg(message)).in_op(OP)
                }
                Place::Gpu(uploads) => uploads.compute(buffer, |buffer| {
                    self.augment(&buffer.pixels.reshape(&dims).in_op(OP)?, &steps)
                }),
            },
        }
    }

    fn augment(&self, pixels: &Tensor, steps: &[Vec<ImageStep>]) -> Result<Tensor, OpError> {
        if steps.is_empty() {
            return self.normalize(pixels);
        }
        self.normalize(&augment_images(pixels, steps)?)
    }

    fn normalize(&self, pixels: &Tensor) -> Result<Tensor, OpError> {
        let How { mean, std, dtype } = self.how;
        normalize_images(pixels, mean, std, dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEAN: [f32; 3] = [0.5, 0.0, 0.25];
    const STD: [f32; 3] = [0.5, 1.0, 0.25];

    fn upload() -> ImageUpload {
        upload_as(DType::F32)
    }

    fn upload_as(dtype: DType) -> ImageUpload {
        ImageUpload::new(&Device::Cpu, [MEAN, STD], dtype).unwrap()
    }

    #[test]
    fn on_the_cpu_images_arrive_normalized() {
        let samples: Vec<u8> = (0..2 * 2 * 3 * 3).map(|i| i * 7).collect();
        let upload = upload();
        let arriving = upload.start(samples.clone(), [2, 2, 3], Vec::new()).unwrap();
        let images = upload.finish(arriving).unwrap();
        assert_eq!(images.dims(), [2, 3, 2, 3]);
        let pixels = Tensor::from_vec(samples, (2, 2, 3, 3), &Device::Cpu).unwrap();
        let expected = normalize_images(&pixels, MEAN, STD, DType::F32).unwrap();
        let numbers = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(numbers(&images), numbers(&expected));
    }

    #[test]
    fn steps_for_a_gpu_are_refused_on_a_cpu() {
        let upload = upload();
        let arriving = upload.start(vec![0; 12], [1, 2, 2], vec![vec![ImageStep::Flip]]).unwrap();
        let error = upload.finish(arriving).unwrap_err().to_string();
        assert!(error.contains("augment_images"), "{error}");
    }

    #[test]
    fn bf16_is_refused_on_a_cpu() {
        let upload = upload_as(DType::BF16);
        let arriving = upload.start(vec![0; 12], [1, 2, 2], Vec::new()).unwrap();
        let error = upload.finish(arriving).unwrap_err().to_string();
        assert_eq!(
            error,
            "normalize_images: `dtype` is BF16, expected f32 or f64 (on a GPU f32 or bf16), \
             the same for all arguments"
        );
    }

    #[test]
    fn another_number_of_pixels_is_an_error() {
        let error = upload().start(vec![0; 11], [1, 2, 2], Vec::new()).unwrap_err().to_string();
        assert!(error.contains("uploading images"), "{error}");
    }
}
