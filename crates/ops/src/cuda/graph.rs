//! The calls of cuDNN's graph interface on a device.

use std::ffi::c_void;
use std::ptr;
use std::time::Instant;

use candle_core::CudaDevice;
use candle_core::cuda::cudarc::cudnn::sys;
use candle_core::cuda::cudarc::driver::sys::CUevent_flags;
use candle_core::cuda::cudarc::driver::{CudaSlice, DevicePtr as _, DriverError};

use super::cudnn::{Cudnn, text};
use crate::gpu::graph::{Attribute, Calls, Kind, Type, Value};

/// The library with a handle on the device's stream.
pub(super) struct Backend {
    cudnn: Cudnn,
    opened: Instant,
}

impl Backend {
    pub(super) fn new(device: &CudaDevice) -> Result<Self, String> {
        Ok(Self { cudnn: Cudnn::new(device)?, opened: Instant::now() })
    }
}

/// A descriptor from the number that it was given out as.
#[expect(clippy::cast_possible_truncation, reason = "CUDA has 64-bit hosts only")]
fn descriptor(number: u64) -> sys::cudnnBackendDescriptor_t {
    ptr::with_exposed_provenance_mut(number as usize)
}

/// Gives the library a value's elements: how many, and where they are.
fn set<T>((of, attribute, kind): (u64, Attribute, Type), elements: &[T]) -> Result<(), String> {
    let count = i64::try_from(elements.len()).map_err(|error| error.to_string())?;
    // SAFETY: the callers give elements of the size that the attribute's type has in C, and the library
    // copies them.
    let status = unsafe {
        sys::cudnnBackendSetAttribute(
            descriptor(of),
            attribute.into(),
            kind.into(),
            count,
            elements.as_ptr().cast(),
        )
    };
    status.result().map_err(text)
}

/// Has the library write a value's elements, and returns how many there are, which may be more.
///
/// # Safety
/// `T` has the size that the attribute's type has in C.
unsafe fn get<T>(
    (of, attribute, kind): (u64, Attribute, Type),
    elements: &mut [T],
) -> Result<usize, String> {
    let room = i64::try_from(elements.len()).map_err(|error| error.to_string())?;
    let into: *mut c_void =
        if elements.is_empty() { ptr::null_mut() } else { elements.as_mut_ptr().cast() };
    let mut count = 0_i64;
    // SAFETY: the library writes as many elements as there is room for at most; their size is promised by
    // the caller.
    let status = unsafe {
        sys::cudnnBackendGetAttribute(
            descriptor(of),
            attribute.into(),
            kind.into(),
            room,
            &raw mut count,
            into,
        )
    };
    status.result().map_err(text)?;
    Ok(usize::try_from(count).unwrap_or(0))
}

fn driver(error: DriverError) -> String {
    error.to_string()
}

impl Calls for Backend {
    type Workspace = CudaSlice<u8>;

    fn identity(&self) -> String {
        self.cudnn.identity.clone()
    }

    fn create(&self, kind: Kind) -> Result<u64, String> {
        let mut made = ptr::null_mut();
        // SAFETY: there is room for the descriptor.
        let status = unsafe { sys::cudnnBackendCreateDescriptor(kind.into(), &raw mut made) };
        status.result().map_err(text)?;
        Ok(made.expose_provenance() as u64)
    }

    fn set(&self, of: u64, attribute: Attribute, value: &Value) -> Result<(), String> {
        let what = (of, attribute, value.kind());
        match value {
            Value::Handle => set(what, &[self.cudnn.handle]),
            Value::Enum(_, number) => set(what, &[*number]),
            Value::Int64(numbers) => set(what, numbers),
            Value::Float(number) => set(what, &[*number]),
            // CUDA has 64-bit hosts only, where a pointer is as large as its number.
            Value::Pointers(addresses) => set(what, addresses),
            Value::Descriptors(descriptors) => set(what, descriptors),
        }
    }

    fn finalize(&self, of: u64) -> Result<(), String> {
        // SAFETY: the descriptor was created and not destroyed, and so were those that it refers to.
        unsafe { sys::cudnnBackendFinalize(descriptor(of)) }.result().map_err(text)
    }

    fn destroy(&self, of: u64) {
        // SAFETY: nothing uses the descriptor after this. A failure cannot be reported.
        let _status = unsafe { sys::cudnnBackendDestroyDescriptor(descriptor(of)) };
    }

    fn count(&self, of: u64, attribute: Attribute, kind: Type) -> Result<usize, String> {
        // SAFETY: there is room for no element.
        unsafe { get::<u64>((of, attribute, kind), &mut []) }
    }

    fn numbers(
        &self,
        of: u64,
        attribute: Attribute,
        kind: Type,
        room: usize,
    ) -> Result<Vec<i64>, String> {
        let what = (of, attribute, kind);
        if kind == Type::CUDNN_TYPE_INT64 {
            let mut numbers = vec![0_i64; room];
            // SAFETY: the type says so.
            let count = unsafe { get(what, &mut numbers) }?;
            numbers.truncate(count);
            return Ok(numbers);
        }
        let mut numbers = vec![0_i32; room];
        // SAFETY: all other types whose numbers are asked for are enumerations, which are ints in C.
        let count = unsafe { get(what, &mut numbers) }?;
        numbers.truncate(count);
        Ok(numbers.into_iter().map(i64::from).collect())
    }

    fn fill(&self, of: u64, attribute: Attribute, into: &[u64]) -> Result<usize, String> {
        let mut pointers: Vec<_> = into.iter().map(|number| descriptor(*number)).collect();
        let what = (of, attribute, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR);
        // SAFETY: the library fills the descriptors that the pointers lead to.
        unsafe { get(what, &mut pointers) }
    }

    fn execute(&self, plan: u64, variant_pack: u64) -> Result<(), String> {
        // SAFETY: both are finalized; the caller holds the tensors whose addresses the pack has and a
        // workspace as large as the plan asked for, and memory is freed in the order of the handle's stream.
        let status = unsafe {
            sys::cudnnBackendExecute(self.cudnn.handle, descriptor(plan), descriptor(variant_pack))
        };
        status.result().map_err(text)
    }

    fn workspace(&self, bytes: usize) -> Result<CudaSlice<u8>, String> {
        self.cudnn.allocate(bytes)
    }

    fn address(&self, workspace: &CudaSlice<u8>) -> u64 {
        workspace.device_ptr(&self.cudnn.device.cuda_stream()).0
    }

    fn milliseconds(&self, work: &dyn Fn() -> Result<(), String>) -> Result<f32, String> {
        let stream = self.cudnn.device.cuda_stream();
        let now = || stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(driver);
        let start = now()?;
        work()?;
        start.elapsed_ms(&now()?).map_err(driver)
    }

    fn seconds(&self) -> f64 {
        self.opened.elapsed().as_secs_f64()
    }
}
