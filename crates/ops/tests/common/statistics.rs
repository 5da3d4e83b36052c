//! Reading the statistics of a batch.

use candle_core::{DType, Device, Tensor};
use moco_ops::{BatchNormSaved, Running, blend_running_};

/// Mean and unbiased variance of each channel, averaged over the first groups.
pub(crate) fn averages(saved: &BatchNormSaved, c: usize, groups: usize) -> [Vec<f64>; 2] {
    let [mean, var] = [(); 2].map(|()| Tensor::zeros(c, DType::F64, &Device::Cpu).unwrap());
    let num_batches_tracked = &Tensor::new(0_i64, &Device::Cpu).unwrap();
    let running = Running { mean: &mean, var: &var, num_batches_tracked };
    blend_running_(saved, running, groups, 1.0).unwrap();
    [mean, var].map(|x| x.to_vec1().unwrap())
}
