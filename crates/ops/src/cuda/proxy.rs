//! A CUDA device for tensors of the CPU: the emulator's tests run on it unchanged (feature
//! `device-tests`). Each launch brings its arguments to the device and its results back.

use std::cell::RefCell;
use std::rc::Rc;

use candle_core::{DType, Device, Tensor};

use super::open_cuda;
use crate::emulator::launched::Launched;
use crate::emulator::memory::{Memory, alloc};
use crate::error::{InOp, OpError};
use crate::gpu::{Arg, Convolution, Gpu, Grid, Kernel, Recorded};
use crate::{ConvBackend, Precision};

thread_local! {
    static DEVICE: RefCell<Option<Device>> = const { RefCell::new(None) };
}

/// The first device of the machine, opened by each thread at its first operation.
#[derive(Debug)]
pub(crate) struct Proxy {
    launched: Launched,
    /// Tensors whose addresses were asked for, for a table, and what they are on the device.
    in_tables: RefCell<Vec<(Memory, Tensor)>>,
}

impl Proxy {
    pub(crate) fn new(launched: Launched) -> Self {
        Self { launched, in_tables: RefCell::default() }
    }

    fn device(op: &'static str) -> Result<(Device, Rc<dyn Gpu>), OpError> {
        DEVICE.with_borrow_mut(|opened| {
            let device = match opened {
                Some(device) => device.clone(),
                none => none.insert(open_cuda(0, Precision::F32, ConvBackend::Auto)?).clone(),
            };
            let Device::Cuda(cuda) = &device else {
                return Err(OpError::Device { op, got: format!("{:?}", device.location()) });
            };
            let gpu = super::of(op, cuda)?;
            Ok((device, gpu))
        })
    }
}

/// Writes what a tensor is on the device into its memory on the host.
fn bring_back(op: &'static str, host: &Memory, on_device: &Tensor) -> Result<(), OpError> {
    let copy = on_device.to_device(&Device::Cpu).in_op(op)?;
    host.restore(Memory::of(op, &copy)?.bytes());
    Ok(())
}

impl Gpu for Proxy {
    fn alloc(&self, op: &'static str, dims: &[usize], dtype: DType) -> Result<Tensor, OpError> {
        alloc(op, dims, dtype)
    }

    fn launch(
        &self,
        op: &'static str,
        kernel: Kernel,
        grid: Grid,
        args: &[Arg<'_>],
    ) -> Result<(), OpError> {
        let (device, gpu) = Self::device(op)?;
        let in_tables = self.in_tables.take();
        // For each argument what it is on the device, if it is a tensor.
        let mut tensors: Vec<Option<Tensor>> = Vec::new();
        let mut written: Vec<(Memory, Tensor)> = Vec::new();
        for arg in args {
            tensors.push(match arg {
                Arg::In(x) => Some(x.to_device(&device).in_op(op)?),
                Arg::Out(x) => {
                    let on_device = x.to_device(&device).in_op(op)?;
                    written.push((Memory::of(op, x)?, on_device.clone()));
                    Some(on_device)
                }
                Arg::Changed(x) => {
                    let host = Memory::of(op, x)?;
                    let known = in_tables.iter().find(|(memory, _)| memory.is(&host));
                    let (_, on_device) = known.ok_or(OpError::Strided { op, tensor: "changed" })?;
                    written.push((host, on_device.clone()));
                    Some(on_device.clone())
                }
                Arg::U32(_) | Arg::U64(_) | Arg::F32(_) => None,
            });
        }
        let on_device = args.iter().zip(&tensors).map(|(arg, tensor)| match (arg, tensor) {
            (Arg::In(_), Some(x)) => Arg::In(x),
            (Arg::Out(_), Some(x)) => Arg::Out(x),
            (Arg::Changed(_), Some(x)) => Arg::Changed(x),
            (number, _) => *number,
        });
        gpu.launch(op, kernel, grid, &on_device.collect::<Vec<_>>())?;
        for (host, on_device) in &written {
            bring_back(op, host, on_device)?;
        }
        self.launched.borrow_mut().push(kernel.entry());
        Ok(())
    }

    fn convolve(
        &self,
        op: &'static str,
        convolution: &Convolution,
        a: &Tensor,
        b: &Tensor,
    ) -> Result<Tensor, OpError> {
        let (device, gpu) = Self::device(op)?;
        let [a, b] = [a.to_device(&device).in_op(op)?, b.to_device(&device).in_op(op)?];
        let out = gpu.convolve(op, convolution, &a, &b)?;
        self.launched.borrow_mut().push(format!("{:?}", convolution.direction));
        out.to_device(&Device::Cpu).in_op(op)
    }

    fn address(&self, op: &'static str, x: &Tensor) -> Result<u64, OpError> {
        let (device, gpu) = Self::device(op)?;
        let host = Memory::of(op, x)?;
        let mut in_tables = self.in_tables.borrow_mut();
        if let Some((_, on_device)) = in_tables.iter().find(|(memory, _)| memory.is(&host)) {
            return gpu.address(op, on_device);
        }
        let on_device = x.to_device(&device).in_op(op)?;
        let address = gpu.address(op, &on_device)?;
        in_tables.push((host, on_device));
        Ok(address)
    }

    fn multiply(&self, op: &'static str, a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
        let (device, gpu) = Self::device(op)?;
        let [a, b] = [a.to_device(&device).in_op(op)?, b.to_device(&device).in_op(op)?];
        let out = gpu.multiply(op, &a, &b)?;
        self.launched.borrow_mut().push("Product".into());
        out.to_device(&Device::Cpu).in_op(op)
    }

    fn write(&self, op: &'static str, to: &Tensor, bytes: &[u8]) -> Result<(), OpError> {
        let (device, gpu) = Self::device(op)?;
        let on_device = to.to_device(&device).in_op(op)?;
        gpu.write(op, &on_device, bytes)?;
        bring_back(op, &Memory::of(op, to)?, &on_device)
    }

    fn copy(&self, op: &'static str, to: &Tensor, from: &Tensor) -> Result<(), OpError> {
        let (device, gpu) = Self::device(op)?;
        let [on_device, from] =
            [to.to_device(&device).in_op(op)?, from.to_device(&device).in_op(op)?];
        gpu.copy(op, &on_device, &from)?;
        bring_back(op, &Memory::of(op, to)?, &on_device)
    }

    fn begin_recording(&self, op: &'static str) -> Result<(), OpError> {
        // Each launch here waits for the device, which a recording cannot.
        Err(OpError::Device { op, got: "tensors of the host".into() })
    }

    fn end_recording(&self, op: &'static str) -> Result<Box<dyn Recorded>, OpError> {
        Err(OpError::Device { op, got: "tensors of the host".into() })
    }

    fn multiprocessors(&self) -> u32 {
        // Without a device the launch that asks for this fails by itself.
        Self::device("multiprocessors").map_or(1, |(_, gpu)| gpu.multiprocessors())
    }
}
