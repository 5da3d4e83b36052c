//! Images from the host's memory to where an encoder computes.

use candle_core::{DType, Device, Tensor};

use crate::error::{InOp, OpError};
use crate::images::normalize_images;
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
    #[cfg(feature = "cuda")]
    OnTheWay(Buffer, [usize; 4]),
}

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

    /// Starts the upload of images `[N, H, W, 3]`, from any thread. On the CPU all is done here.
    ///
    /// # Errors
    /// If there is no room or the number of pixels is another.
    pub fn start(&self, pixels: Vec<u8>, [n, h, w]: [usize; 3]) -> Result<ArrivingImages, OpError> {
        let dims = [n, h, w, 3];
        match &self.place {
            Place::Host => {
                let pixels = Tensor::from_vec(pixels, &dims, &Device::Cpu).in_op(OP)?;
                Ok(ArrivingImages(Arriving::Here(self.normalize(&pixels)?)))
            }
            #[cfg(feature = "cuda")]
            Place::Gpu(uploads) => {
                if pixels.len() != dims.iter().product::<usize>() {
                    let got = [pixels.len()];
                    return Err(crate::dense::shape(OP, "pixels", format!("{dims:?}"), &got));
                }
                Ok(ArrivingImages(Arriving::OnTheWay(uploads.start(&pixels)?, dims)))
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
            #[cfg(feature = "cuda")]
            Arriving::OnTheWay(buffer, dims) => match &self.place {
                Place::Host => {
                    let message = "images on their way to another device".into();
                    Err(candle_core::Error::Msg(message)).in_op(OP)
                }
                Place::Gpu(uploads) => uploads.compute(buffer, |buffer| {
                    self.normalize(&buffer.pixels.reshape(&dims).in_op(OP)?)
                }),
            },
        }
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
        ImageUpload::new(&Device::Cpu, [MEAN, STD], DType::F32).unwrap()
    }

    #[test]
    fn on_the_cpu_images_arrive_normalized() {
        let samples: Vec<u8> = (0..2 * 2 * 3 * 3).map(|i| i * 7).collect();
        let upload = upload();
        let arriving = upload.start(samples.clone(), [2, 2, 3]).unwrap();
        let images = upload.finish(arriving).unwrap();
        assert_eq!(images.dims(), [2, 3, 2, 3]);
        let pixels = Tensor::from_vec(samples, (2, 2, 3, 3), &Device::Cpu).unwrap();
        let expected = normalize_images(&pixels, MEAN, STD, DType::F32).unwrap();
        let numbers = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(numbers(&images), numbers(&expected));
    }

    #[test]
    fn another_number_of_pixels_is_an_error() {
        let error = upload().start(vec![0; 11], [1, 2, 2]).unwrap_err().to_string();
        assert!(error.contains("uploading images"), "{error}");
    }
}
