//! Forward and backward of each operation that a ResNet and MoCo need, f32 and f64 on the CPU.
//!
//! Plain functions on candle tensors, without autograd. Images and activations are `[N, C, H, W]` with
//! channels last in memory (docs/adr/002). Results have the same bits for any number of threads.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use moco_ops::{Conv2dSpec, conv2d};
//! let x = Tensor::ones((1, 2, 4, 4), candle_core::DType::F32, &Device::Cpu)?;
//! let w = Tensor::ones((3, 2, 3, 3), candle_core::DType::F32, &Device::Cpu)?;
//! let y = conv2d(&x, &w, Conv2dSpec::new(1, 1))?;
//! assert_eq!(y.dims(), [1, 3, 4, 4]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod add;
mod backend;
mod batch_norm;
mod conv;
mod copy;
#[cfg(feature = "cuda")]
mod cuda;
mod dense;
mod device;
mod elementwise;
#[cfg(feature = "emulator")]
mod emulator;
mod enqueue;
mod error;
mod exp;
#[cfg_attr(not(any(feature = "cuda", feature = "emulator")), expect(dead_code, reason = "no GPU"))]
mod gpu;
mod images;
mod info_nce;
mod linear;
mod normalize;
mod peak;
mod pool;
mod recording;
mod recycle;
mod relu;
mod select;
mod simd;
mod tile;
mod trace;
mod update;
mod upload;

pub use add::add;
pub use batch_norm::{
    After, BatchNorm, BatchNormGradients, BatchNormSaved, Running, batch_norm_backward,
    batch_norm_eval, batch_norm_eval_backward, batch_norm_train, blend_running_,
};
pub use conv::{Conv2dSpec, conv2d, conv2d_input_gradient, conv2d_weight_gradient};
pub use copy::{copy_, upload};
#[cfg(feature = "cuda")]
pub use cuda::open_cuda;
pub use device::{
    ConvBackend, OutdatedChoices, Precision, convolution_choices, peak_device_memory_bytes,
    prefer_convolution_choices, varying_convolutions,
};
#[cfg(feature = "emulator")]
pub use emulator::emulate;
pub use enqueue::enqueue_;
pub use error::OpError;
pub use images::{ImageStep, augment_images, normalize_images};
pub use info_nce::{InfoNce, InfoNceStatistics, PendingStatistics, info_nce};
pub use linear::{LinearGradients, linear, linear_backward};
pub use normalize::{l2_normalize, l2_normalize_backward};
pub use peak::multiply_adds;
pub use pool::{
    MaxPooled, global_average_pool, global_average_pool_backward, max_pool, max_pool_backward,
};
pub use recording::Recording;
pub use recycle::Recycler;
pub use relu::{relu, relu_backward};
pub use select::select_rows;
pub use simd::instruction_set;
pub use trace::{Traced, trace};
pub use update::{EmaUpdate, SgdUpdate, ema_, sgd_};
pub use upload::{ArrivingImages, ImageUpload};
