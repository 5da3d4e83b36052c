//! Convolutions by cuDNN's legacy interface, channels last. bf16 and f32 are added up in f32; f32 is rounded
//! to TF32 only where the process asked for it.

use std::ffi::{c_int, c_void};
use std::ptr;

use candle_core::cuda::cudarc::cudnn::CudnnError;
use candle_core::cuda::cudarc::cudnn::result as cudnn;
use candle_core::cuda::cudarc::cudnn::sys;
use candle_core::cuda::cudarc::driver::{CudaSlice, DevicePtr as _};
use candle_core::cuda::gemm_reduced_precision_f32;
use candle_core::{CudaDevice, DType};

use super::driver::pointer;
use crate::gpu::Convolution;
use crate::gpu::convolution::Direction;
use crate::gpu::plans::{Candidate, Library, Measured, Operands};
use crate::gpu::sizes::Sizes;

/// Algorithms of a direction at most.
const MOST: usize = 16;

/// A handle on the device's stream.
pub(super) struct Cudnn {
    pub(super) device: CudaDevice,
    pub(super) handle: sys::cudnnHandle_t,
    /// The library's version and the device's name.
    pub(super) identity: String,
}

/// cuDNN's descriptors of a convolution.
pub(super) struct Descriptors {
    direction: Direction,
    x: sys::cudnnTensorDescriptor_t,
    weight: sys::cudnnFilterDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    convolution: sys::cudnnConvolutionDescriptor_t,
    /// The instructions that are allowed; the search tries others too.
    math: sys::cudnnMathType_t,
}

/// An algorithm, and the instructions that it was measured with: cuDNN knows it by both.
#[derive(Debug, Clone, Copy)]
pub(super) struct Algorithm {
    way: Way,
    math: sys::cudnnMathType_t,
}

/// An algorithm of one of the three directions.
#[derive(Debug, Clone, Copy)]
enum Way {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    InputGradient(sys::cudnnConvolutionBwdDataAlgo_t),
    WeightGradient(sys::cudnnConvolutionBwdFilterAlgo_t),
}

impl Cudnn {
    pub(super) fn new(device: &CudaDevice) -> Result<Self, String> {
        let context = device.cuda_stream().context().clone();
        // The handle is of the device that the thread computes on at this moment.
        context.bind_to_thread().map_err(|error| error.to_string())?;
        let name = context.name().map_err(|error| error.to_string())?;
        let handle = cudnn::create_handle().map_err(|error| {
            format!("{}; libcudnn.so.9 must be where the loader finds it", text(error))
        })?;
        // SAFETY: it only returns a number.
        let version = unsafe { sys::cudnnGetVersion() };
        let identity = format!("cuDNN {version} on {name}");
        let this = Self { device: device.clone(), handle, identity };
        let stream = device.cuda_stream().cu_stream();
        // SAFETY: the handle was just made, and the device keeps the stream.
        unsafe { cudnn::set_stream(handle, stream.cast()) }.map_err(text)?;
        Ok(this)
    }

    pub(super) fn allocate(&self, bytes: usize) -> Result<CudaSlice<u8>, String> {
        // SAFETY: cuDNN writes what it reads of it.
        unsafe { self.device.alloc::<u8>(bytes) }
            .map_err(|error| format!("no {bytes} bytes of workspace: {error}"))
    }
}

impl Drop for Cudnn {
    fn drop(&mut self) {
        // SAFETY: nothing uses the handle after this. A failure cannot be reported.
        let _status = unsafe { cudnn::destroy_handle(self.handle) };
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // SAFETY: nothing uses the descriptors after this. A failure cannot be reported.
        unsafe {
            let _status = cudnn::destroy_tensor_descriptor(self.x);
            let _status = cudnn::destroy_filter_descriptor(self.weight);
            let _status = cudnn::destroy_tensor_descriptor(self.y);
            let _status = cudnn::destroy_convolution_descriptor(self.convolution);
        }
    }
}

pub(super) fn text(error: CudnnError) -> String {
    error.to_string()
}

fn null_if_none(workspace: Option<&CudaSlice<u8>>, device: &CudaDevice) -> (*mut c_void, usize) {
    workspace.map_or((ptr::null_mut(), 0), |slice| (address(slice, device), slice.len()))
}

/// An algorithm with its instructions as a number that means the same in another process.
fn number(algorithm: Algorithm) -> u32 {
    let way = match algorithm.way {
        Way::Forward(way) => way as u32,
        Way::InputGradient(way) => way as u32,
        Way::WeightGradient(way) => way as u32,
    };
    10 * way + algorithm.math as u32
}

fn address(slice: &CudaSlice<u8>, device: &CudaDevice) -> *mut c_void {
    pointer(slice.device_ptr(&device.cuda_stream()).0)
}

impl Library for Cudnn {
    type Workspace = CudaSlice<u8>;
    type Descriptors = Descriptors;
    type Algorithm = Algorithm;

    fn identity(&self) -> String {
        format!("the legacy interface of {}", self.identity)
    }

    fn describe(&self, convolution: &Convolution) -> Result<Descriptors, String> {
        let Convolution { direction, geometry, dtype } = convolution;
        let sizes = Sizes::of(geometry)?;
        let data_type = match dtype {
            DType::F32 => sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
            DType::BF16 => sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
            other => return Err(format!("{other:?} is no type of a convolution here")),
        };
        let math = if *dtype == DType::BF16 || gemm_reduced_precision_f32() {
            sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH
        } else {
            sys::cudnnMathType_t::CUDNN_FMA_MATH
        };
        let format = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let what = Descriptors {
            direction: *direction,
            x: cudnn::create_tensor_descriptor().map_err(text)?,
            weight: cudnn::create_filter_descriptor().map_err(text)?,
            y: cudnn::create_tensor_descriptor().map_err(text)?,
            convolution: cudnn::create_convolution_descriptor().map_err(text)?,
            math,
        };
        let Sizes { padding, stride, dilation, groups, .. } = sizes;
        // SAFETY: the descriptors were just made.
        unsafe {
            cudnn::set_tensor4d_descriptor(what.x, format, data_type, sizes.x).map_err(text)?;
            cudnn::set_tensor4d_descriptor(what.y, format, data_type, sizes.y).map_err(text)?;
            cudnn::set_filter4d_descriptor(what.weight, data_type, format, sizes.weight)
                .map_err(text)?;
            cudnn::set_convolution2d_descriptor(
                what.convolution,
                padding,
                padding,
                stride,
                stride,
                dilation,
                dilation,
                sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
                sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
            )
            .map_err(text)?;
            cudnn::set_convolution_math_type(what.convolution, math).map_err(text)?;
            cudnn::set_convolution_group_count(what.convolution, groups).map_err(text)?;
        }
        Ok(what)
    }

    fn workspace(&self, bytes: usize) -> Result<CudaSlice<u8>, String> {
        self.allocate(bytes)
    }

    fn measure(
        &self,
        what: &Descriptors,
        _preferred: Option<&str>,
        operands: Operands,
        workspace: &CudaSlice<u8>,
    ) -> Result<Measured<Algorithm>, String> {
        let Operands { a, b, out } = operands;
        let (a, b, out) = (pointer(a), pointer(b), pointer(out));
        let (space, bytes) = (address(workspace, &self.device), workspace.len());
        let Descriptors { direction, x, weight, y, convolution, math } = *what;
        // Where f32 is to stay f32, what was measured with TF32 is no answer.
        let is_allowed =
            |measured| math != sys::cudnnMathType_t::CUDNN_FMA_MATH || measured == math;
        let handle = self.handle;
        let mut count: c_int = 0;
        // Calls a search of the library and reads what it found; the three differ in types only.
        macro_rules! search {
            ($find:ident, $way:path, [$($operand:expr),+]) => {{
                let mut found = Vec::with_capacity(MOST);
                // The first search also times how kernels are loaded.
                for _ in 0..2 {
                    found.clear();
                    // SAFETY: descriptors and operands belong together, as the plan's key says; the
                    // library writes at most as many results as there is room for, and returns how many.
                    unsafe {
                        sys::$find(
                            handle, $($operand,)+ MOST as c_int, &raw mut count, found.as_mut_ptr(), space,
                            bytes,
                        )
                        .result()
                        .map_err(text)?;
                        found.set_len(usize::try_from(count).unwrap_or(0).min(MOST));
                    }
                }
                let mut measured = Measured { candidates: Vec::new(), skipped: Vec::new() };
                for found in found {
                    let algorithm = Algorithm { way: $way(found.algo), math: found.mathType };
                    if found.status != sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                        || !is_allowed(found.mathType)
                    {
                        measured.skipped.push(format!("{} cannot", number(algorithm)));
                        continue;
                    }
                    measured.candidates.push(Candidate {
                        algorithm,
                        milliseconds: found.time,
                        workspace_bytes: found.memory,
                        deterministic: found.determinism
                            == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC,
                    });
                }
                measured
            }};
        }
        Ok(match direction {
            Direction::Forward => search!(
                cudnnFindConvolutionForwardAlgorithmEx,
                Way::Forward,
                [x, a, weight, b, convolution, y, out]
            ),
            Direction::InputGradient => search!(
                cudnnFindConvolutionBackwardDataAlgorithmEx,
                Way::InputGradient,
                [weight, a, y, b, convolution, x, out]
            ),
            Direction::WeightGradient => search!(
                cudnnFindConvolutionBackwardFilterAlgorithmEx,
                Way::WeightGradient,
                [x, a, y, b, convolution, weight, out]
            ),
        })
    }

    fn name(&self, algorithm: &Algorithm) -> String {
        number(*algorithm).to_string()
    }

    fn run(
        &self,
        what: &Descriptors,
        algorithm: &Algorithm,
        operands: Operands,
        workspace: Option<&CudaSlice<u8>>,
    ) -> Result<(), String> {
        let Operands { a, b, out } = operands;
        let (a, b, out) = (pointer(a), pointer(b), pointer(out));
        let (space, bytes) = null_if_none(workspace, &self.device);
        let Descriptors { x, weight, y, convolution, .. } = *what;
        // The result is what was computed, with nothing of what was there before.
        let (one, zero) = (1.0_f32, 0.0_f32);
        let (one, zero) = (ptr::from_ref(&one).cast(), ptr::from_ref(&zero).cast());
        let handle = self.handle;
        // SAFETY: as in `measure`; the workspace is as large as the algorithm asked for.
        let result = unsafe {
            cudnn::set_convolution_math_type(convolution, algorithm.math).map_err(text)?;
            match algorithm.way {
                Way::Forward(algorithm) => cudnn::convolution_forward(
                    handle,
                    one,
                    x,
                    a,
                    weight,
                    b,
                    convolution,
                    algorithm,
                    space,
                    bytes,
                    zero,
                    y,
                    out,
                ),
                Way::InputGradient(algorithm) => cudnn::convolution_backward_data(
                    handle,
                    one,
                    weight,
                    a,
                    y,
                    b,
                    convolution,
                    algorithm,
                    space,
                    bytes,
                    zero,
                    x,
                    out,
                ),
                Way::WeightGradient(algorithm) => cudnn::convolution_backward_filter(
                    handle,
                    one,
                    x,
                    a,
                    y,
                    b,
                    convolution,
                    algorithm,
                    space,
                    bytes,
                    zero,
                    weight,
                    out,
                ),
            }
        };
        result.map_err(text)
    }
}
