//! CUDA devices: memory from the device's own pool, kernels from the embedded module, convolutions by
//! cuDNN, through the interface that the device was opened with.
//!
//! One stream computes; everything queued on it runs in order. candle's tracking of uses by events is
//! off, since with one stream it could only cost.

mod cudnn;
mod device;
mod driver;
mod graph;
mod memory;
#[cfg(feature = "device-tests")]
pub(crate) mod proxy;
mod recording;
mod staging;
mod trace;
pub(crate) mod transfers;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use candle_core::cuda::cudarc::driver::result::memcpy_dtod_async;
use candle_core::cuda::cudarc::driver::sys::CUdevice_attribute;
use candle_core::cuda::cudarc::driver::{
    CudaFunction, CudaSlice, LaunchConfig, PushKernelArg as _,
};
use candle_core::cuda::{DeviceId, gemm_reduced_precision_f32};
use candle_core::{CudaDevice, DType, Tensor};

use self::cudnn::Cudnn;
pub use self::device::open_cuda;
use self::driver::driver;
use self::graph::Backend;
use self::recording::Tape;
use self::staging::Staging;
use self::trace::Trace;
use crate::device::{ConvBackend, OutdatedChoices};
use crate::error::{InOp, OpError};
use crate::gpu::cost::Work;
use crate::gpu::graph::{F32Products, Graph};
use crate::gpu::plans::{Operands, Plans, Table};
use crate::gpu::{Arg, Convolution, Gpu, Grid, Kernel, Recorded};
use crate::trace::Traced;

const CHOICES: &str = "choosing algorithms";
/// All kernels of the crate.
const MODULE: &str = include_str!(concat!(env!("OUT_DIR"), "/moco.ptx"));

thread_local! {
    /// cuDNN's handles belong to a thread.
    static OPENED: RefCell<Vec<(DeviceId, Rc<Cuda>)>> = const { RefCell::new(Vec::new()) };
}

/// The GPU behind a candle device, for this thread.
pub(crate) fn of(op: &'static str, device: &CudaDevice) -> Result<Rc<dyn Gpu>, OpError> {
    Ok(opened(op, device)? as Rc<dyn Gpu>)
}

fn opened(op: &'static str, device: &CudaDevice) -> Result<Rc<Cuda>, OpError> {
    OPENED.with_borrow_mut(|opened| {
        if let Some((_, gpu)) = opened.iter().find(|(id, _)| *id == device.id()) {
            return Ok(Rc::clone(gpu));
        }
        let gpu = Rc::new(Cuda::new(op, device)?);
        opened.push((device.id(), Rc::clone(&gpu)));
        Ok(gpu)
    })
}

/// The planned algorithms of this thread's convolutions.
pub(crate) fn convolution_choices(device: &CudaDevice) -> Result<String, OpError> {
    opened(CHOICES, device)?.with_plans(CHOICES, |plans| Ok(plans.choices()))
}

/// Has this thread's convolutions planned as before.
pub(crate) fn prefer_convolution_choices(
    device: &CudaDevice,
    choices: &str,
) -> Result<Option<OutdatedChoices>, OpError> {
    opened(CHOICES, device)?.with_plans(CHOICES, |plans| plans.prefer(choices))
}

/// Most memory that tensors, libraries' workspaces and recorded work ever took on a device at a time, as this
/// thread has seen it.
pub(crate) fn peak_memory_bytes(device: &CudaDevice) -> Result<u64, OpError> {
    opened("peak memory", device)?.peak_memory_bytes()
}

/// See [`crate::trace()`].
pub(crate) fn traced<R>(
    device: &CudaDevice,
    work: impl FnOnce() -> R,
) -> Result<(R, Vec<Traced>), OpError> {
    let gpu = opened("trace", device)?;
    *gpu.trace.borrow_mut() = Some(Trace::new(device.cuda_stream()));
    let result = work();
    let trace = gpu.trace.take();
    Ok((result, trace.map_or_else(|| Ok(Vec::new()), Trace::end)?))
}

/// Convolutions by either interface.
type Convolutions = dyn Table<CudaSlice<u8>>;

struct Cuda {
    device: CudaDevice,
    multiprocessors: u32,
    functions: RefCell<BTreeMap<Kernel, CudaFunction>>,
    plans: RefCell<Option<Box<Convolutions>>>,
    staging: RefCell<Option<Staging>>,
    tape: RefCell<Option<Tape>>,
    trace: RefCell<Option<Trace>>,
    /// Most memory that was in use before the last recording began.
    peak_before: Cell<u64>,
}

impl Cuda {
    fn new(op: &'static str, device: &CudaDevice) -> Result<Self, OpError> {
        let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let count = device.cuda_stream().context().attribute(attribute).map_err(driver(op))?;
        Ok(Self {
            device: device.clone(),
            multiprocessors: u32::try_from(count).unwrap_or(1).max(1),
            functions: RefCell::default(),
            plans: RefCell::default(),
            staging: RefCell::default(),
            tape: RefCell::default(),
            trace: RefCell::default(),
            peak_before: Cell::new(0),
        })
    }

    fn function(&self, op: &'static str, kernel: Kernel) -> Result<CudaFunction, OpError> {
        if let Some(function) = self.functions.borrow().get(&kernel) {
            return Ok(function.clone());
        }
        let name = kernel.entry();
        let function = self.device.get_or_load_custom_func(&name, "moco", MODULE).in_op(op)?;
        let function = function.into_cuda_function();
        self.functions.borrow_mut().insert(kernel, function.clone());
        Ok(function)
    }

    /// Opens the library at the first call.
    fn with_plans<R>(
        &self,
        op: &'static str,
        work: impl FnOnce(&mut Convolutions) -> Result<R, String>,
    ) -> Result<R, OpError> {
        let library = |what: String| OpError::Library { op, library: "cuDNN", what };
        let mut plans = self.plans.borrow_mut();
        let plans = match &mut *plans {
            Some(plans) => plans,
            none => none.insert(self.open_convolutions().map_err(library)?),
        };
        work(plans.as_mut()).map_err(library)
    }

    fn open_convolutions(&self) -> Result<Box<Convolutions>, String> {
        let f32_products =
            if gemm_reduced_precision_f32() { F32Products::Tf32 } else { F32Products::Exact };
        Ok(match device::conv_backend(&self.device) {
            // Until a device has measured both.
            ConvBackend::Auto | ConvBackend::Legacy => {
                Box::new(Plans::new(Cudnn::new(&self.device)?))
            }
            ConvBackend::Graph => {
                Box::new(Plans::new(Graph::new(Backend::new(&self.device)?, f32_products)))
            }
        })
    }

    fn peak_memory_bytes(&self) -> Result<u64, OpError> {
        Ok(self.peak_before.get().max(device::peak_memory_bytes(&self.device)?))
    }

    /// Calls `queue`, with marks around it if its time is to be measured.
    fn watched<R>(
        &self,
        work: impl FnOnce() -> Work,
        queue: impl FnOnce() -> Result<R, OpError>,
    ) -> Result<R, OpError> {
        // Not held while `queue` runs, which may come here again.
        let before = self.trace.borrow().as_ref().map(Trace::mark).transpose()?;
        let result = queue()?;
        if let (Some(before), Some(trace)) = (before, &mut *self.trace.borrow_mut()) {
            trace.queued(work(), before)?;
        }
        Ok(result)
    }

    /// Registers a tensor with the recording that allocated it.
    fn allocated(&self, op: &'static str, x: &Tensor) -> Result<(), OpError> {
        if let Some(tape) = &mut *self.tape.borrow_mut() {
            tape.allocated(memory::place(&self.device, x).in_op(op)?);
        }
        Ok(())
    }
}

impl Gpu for Cuda {
    fn alloc(&self, op: &'static str, dims: &[usize], dtype: DType) -> Result<Tensor, OpError> {
        let x = memory::alloc(&self.device, dims, dtype).in_op(op)?;
        self.allocated(op, &x)?;
        Ok(x)
    }

    fn launch(
        &self,
        op: &'static str,
        kernel: Kernel,
        grid: Grid,
        args: &[Arg<'_>],
    ) -> Result<(), OpError> {
        let function = self.function(op, kernel)?;
        let mut addresses = Vec::new();
        for arg in args {
            match arg {
                Arg::In(x) | Arg::Out(x) => addresses.push(self.address(op, x)?),
                // Its address is in a table already: only whether it can be changed is asked here.
                Arg::Changed(x) => {
                    self.address(op, x)?;
                }
                Arg::U32(_) | Arg::U64(_) | Arg::F32(_) => {}
            }
        }
        let stream = self.device.cuda_stream();
        let mut launch = stream.launch_builder(&function);
        let mut next = addresses.iter();
        for arg in args {
            match arg {
                Arg::In(_) | Arg::Out(_) => {
                    if let Some(address) = next.next() {
                        launch.arg(address);
                    }
                }
                Arg::Changed(_) => {}
                Arg::U32(value) => {
                    launch.arg(value);
                }
                Arg::U64(value) => {
                    launch.arg(value);
                }
                Arg::F32(value) => {
                    launch.arg(value);
                }
            }
        }
        let [x, y] = grid.blocks;
        let config = LaunchConfig {
            grid_dim: (x, y, 1),
            block_dim: (grid.threads, 1, 1),
            shared_mem_bytes: grid.shared_bytes,
        };
        // SAFETY: the emulator compares the parameters of every kernel with the arguments that the
        // operations give; the addresses are of tensors that the caller holds, and memory is freed in
        // the order of this stream.
        let queue = || unsafe { launch.launch(config) }.map(drop).map_err(driver(op));
        self.watched(|| Work::of_launch(op, kernel, args), queue)
    }

    fn convolve(
        &self,
        op: &'static str,
        convolution: &Convolution,
        a: &Tensor,
        b: &Tensor,
    ) -> Result<Tensor, OpError> {
        let out = self.alloc(op, &convolution.output_dims(), convolution.dtype)?;
        let address = |x: &Tensor| self.address(op, x);
        let operands = Operands { a: address(a)?, b: address(b)?, out: address(&out)? };
        let records = self.tape.borrow().is_some();
        let queue = || {
            self.with_plans(op, |plans| {
                if records {
                    plans.run_planned(convolution, operands)
                } else {
                    plans.run(convolution, operands)
                }
            })
        };
        self.watched(|| Work::of_convolution(op, convolution), queue)?;
        Ok(out)
    }

    fn multiply(&self, op: &'static str, a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
        // For a recording the operands are used as those of a kernel are; a transpose lies in the same
        // memory.
        for x in [a, b] {
            let rows = if x.is_contiguous() { x.clone() } else { x.t().in_op(op)? };
            self.address(op, &rows)?;
        }
        let queue = || a.matmul(b).in_op(op);
        let product = self.watched(|| Work::of_product(op, a, b), queue)?;
        self.allocated(op, &product)?;
        Ok(product)
    }

    fn address(&self, op: &'static str, x: &Tensor) -> Result<u64, OpError> {
        let place = memory::place(&self.device, x).in_op(op)?;
        if let Some(tape) = &mut *self.tape.borrow_mut() {
            tape.uses(place, x);
        }
        Ok(place.start)
    }

    fn write(&self, op: &'static str, to: &Tensor, bytes: &[u8]) -> Result<(), OpError> {
        let to = self.address(op, to)?;
        if let Some(tape) = &mut *self.tape.borrow_mut() {
            return tape.write(op, to, bytes);
        }
        let mut staging = self.staging.borrow_mut();
        let staging = match &mut *staging {
            Some(staging) => staging,
            none => none.insert(Staging::new(op, &self.device.cuda_stream())?),
        };
        staging.copy(op, to, bytes)
    }

    fn copy(&self, op: &'static str, to: &Tensor, from: &Tensor) -> Result<(), OpError> {
        let bytes = to.elem_count() * to.dtype().size_in_bytes();
        let (to, from) = (self.address(op, to)?, self.address(op, from)?);
        let stream = self.device.cuda_stream();
        stream.context().bind_to_thread().map_err(driver(op))?;
        // SAFETY: both tensors have as many bytes, are held by the caller, and memory is freed in the
        // order of this stream.
        unsafe { memcpy_dtod_async(to, from, bytes, stream.cu_stream()) }.map_err(driver(op))
    }

    fn begin_recording(&self, op: &'static str) -> Result<(), OpError> {
        self.peak_before.set(self.peak_memory_bytes()?);
        *self.tape.borrow_mut() = Some(Tape::begin(op, &self.device)?);
        Ok(())
    }

    fn end_recording(&self, op: &'static str) -> Result<Box<dyn Recorded>, OpError> {
        let tape = self.tape.take().ok_or(OpError::Library {
            op,
            library: "the CUDA driver",
            what: "no recording is in progress".into(),
        })?;
        let plans = self.plans.borrow();
        let workspace = plans.as_ref().and_then(|plans| plans.workspace());
        Ok(Box::new(tape.end(op, workspace)?))
    }

    fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }
}
