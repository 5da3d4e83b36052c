//! Stands in for a GPU: runs the CUDA kernels on the host, on tensors of the CPU, and multiplies and
//! convolves by the CPU's own operations. For tests.
//!
//! Each kernel runs twice, with the threads and blocks in rising and in falling order, and must leave the
//! same bits: where a barrier is missing, it does not. Memory starts as NaN and has margins that no
//! kernel may touch. While it records, nothing is computed, as on a device.

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::sync::Mutex;

use candle_core::{DType, Tensor};

use super::launched::Launched;
use super::memory::{Memory, alloc};
use crate::conv::cpu;
use crate::error::{InOp, OpError};
use crate::gpu::{Arg, Convolution, Gpu, Grid, Kernel, Recorded};

/// Few, so that kernels walk over their data as they do on a device with much of it.
const MULTIPROCESSORS: u32 = 1;

unsafe extern "C" {
    fn moco_emulate(
        name: *const c_char,
        signature: *const c_char,
        blocks: *const c_uint,
        threads: c_uint,
        shared_bytes: c_uint,
        backwards: c_int,
        args: *mut *mut c_void,
    ) -> c_int;
}

/// The C++ side keeps its block in static memory.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Something to do, with all that it needs.
type Job = Box<dyn Fn() -> Result<(), OpError>>;

/// See the module.
pub(super) struct Emulator {
    launched: Launched,
    recording: RefCell<Option<Vec<Job>>>,
}

impl Emulator {
    pub(super) fn new(launched: Launched) -> Self {
        Self { launched, recording: RefCell::new(None) }
    }

    /// Does the job, or keeps it for later.
    fn queue(&self, job: impl Fn() -> Result<(), OpError> + 'static) -> Result<(), OpError> {
        if let Some(jobs) = &mut *self.recording.borrow_mut() {
            jobs.push(Box::new(job));
            return Ok(());
        }
        job()
    }

    /// Queues the computation of a tensor of this shape and type.
    fn queue_result(
        &self,
        op: &'static str,
        dims: &[usize],
        dtype: DType,
        work: impl Fn() -> Result<Tensor, OpError> + 'static,
    ) -> Result<Tensor, OpError> {
        let out = alloc(op, dims, dtype)?;
        let to = out.clone();
        self.queue(move || {
            let result = work()?;
            Memory::of(op, &to)?.restore(Memory::of(op, &result)?.bytes());
            Ok(())
        })?;
        Ok(out)
    }
}

impl Gpu for Emulator {
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
        let args: Vec<Owned> = args.iter().map(Owned::of).collect();
        let launched = Launched::clone(&self.launched);
        self.queue(move || {
            let name = kernel.entry();
            run_in_both_orders(op, &name, grid, &args)?;
            launched.borrow_mut().push(name);
            Ok(())
        })
    }

    fn convolve(
        &self,
        op: &'static str,
        convolution: &Convolution,
        a: &Tensor,
        b: &Tensor,
    ) -> Result<Tensor, OpError> {
        let launched = Launched::clone(&self.launched);
        let (convolution, a, b) = (*convolution, a.clone(), b.clone());
        let dims = convolution.output_dims();
        self.queue_result(op, &dims, convolution.dtype, move || {
            let wide = |x: &Tensor| x.to_dtype(DType::F32)?.permute((0, 3, 1, 2));
            let (wide_a, wide_b) = (wide(&a).in_op(op)?, wide(&b).in_op(op)?);
            let y = cpu::product(convolution.direction, convolution.geometry, &wide_a, &wide_b)?;
            let y = y.permute((0, 2, 3, 1)).and_then(|y| y.contiguous()?.to_dtype(a.dtype()));
            launched.borrow_mut().push(format!("{:?}", convolution.direction));
            y.in_op(op)
        })
    }

    fn multiply(&self, op: &'static str, a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
        let launched = Launched::clone(&self.launched);
        let dims = [a.dims()[0], b.dims()[1]];
        let (a, b) = (a.clone(), b.clone());
        self.queue_result(op, &dims, DType::F32, move || {
            launched.borrow_mut().push("Product".into());
            a.matmul(&b).in_op(op)
        })
    }

    fn address(&self, op: &'static str, x: &Tensor) -> Result<u64, OpError> {
        Ok(Memory::of(op, x)?.address())
    }

    fn write(&self, op: &'static str, to: &Tensor, bytes: &[u8]) -> Result<(), OpError> {
        let (to, bytes) = (to.clone(), bytes.to_vec());
        self.queue(move || {
            Memory::of(op, &to)?.restore(&bytes);
            Ok(())
        })
    }

    fn copy(&self, op: &'static str, to: &Tensor, from: &Tensor) -> Result<(), OpError> {
        let (to, from) = (to.clone(), from.clone());
        self.queue(move || {
            Memory::of(op, &to)?.restore(Memory::of(op, &from)?.bytes());
            Ok(())
        })
    }

    fn begin_recording(&self, _: &'static str) -> Result<(), OpError> {
        self.recording.replace(Some(Vec::new()));
        Ok(())
    }

    fn end_recording(&self, _: &'static str) -> Result<Box<dyn Recorded>, OpError> {
        Ok(Box::new(Jobs(self.recording.take().unwrap_or_default())))
    }

    fn multiprocessors(&self) -> u32 {
        MULTIPROCESSORS
    }
}

/// The captured jobs.
struct Jobs(Vec<Job>);

impl Recorded for Jobs {
    fn repeat(&self, _: &'static str) -> Result<(), OpError> {
        self.0.iter().try_for_each(|job| job())
    }
}

/// An argument of a kernel that holds its tensor.
#[derive(Debug, Clone)]
enum Owned {
    In(Tensor),
    Out(Tensor),
    Changed(Tensor),
    U32(u32),
    U64(u64),
    F32(f32),
}

impl Owned {
    fn of(arg: &Arg<'_>) -> Self {
        match *arg {
            Arg::In(x) => Self::In(x.clone()),
            Arg::Out(x) => Self::Out(x.clone()),
            Arg::Changed(x) => Self::Changed(x.clone()),
            Arg::U32(value) => Self::U32(value),
            Arg::U64(value) => Self::U64(value),
            Arg::F32(value) => Self::F32(value),
        }
    }
}

fn run_in_both_orders(
    op: &'static str,
    name: &str,
    grid: Grid,
    args: &[Owned],
) -> Result<(), OpError> {
    let fail = |what: &str| OpError::Kernel { op, kernel: name.to_owned(), what: what.to_owned() };
    let mut memory = Vec::new();
    for arg in args {
        if let Owned::In(x) | Owned::Out(x) | Owned::Changed(x) = arg {
            memory.push((arg, Memory::of(op, x)?));
        }
    }
    let written: Vec<&Memory> = memory
        .iter()
        .filter(|(arg, _)| matches!(arg, Owned::Out(_) | Owned::Changed(_)))
        .map(|(_, memory)| memory)
        .collect();
    let before: Vec<Vec<u8>> = written.iter().map(|memory| memory.bytes().to_vec()).collect();
    let addresses: Vec<u64> = memory
        .iter()
        .filter(|(arg, _)| !matches!(arg, Owned::Changed(_)))
        .map(|(_, memory)| memory.address())
        .collect();
    run(name, grid, args, &addresses, Order::Falling).map_err(|what| fail(&what))?;
    let falling: Vec<Vec<u8>> = written.iter().map(|memory| memory.bytes().to_vec()).collect();
    for (memory, before) in written.iter().zip(&before) {
        memory.restore(before);
    }
    run(name, grid, args, &addresses, Order::Rising).map_err(|what| fail(&what))?;
    for (memory, falling) in written.iter().zip(&falling) {
        if memory.bytes() != falling {
            return Err(fail("its result depends on the order of its threads"));
        }
        if !memory.margins_are_whole() {
            return Err(fail("it wrote outside its result"));
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Rising,
    Falling,
}

fn run(
    name: &str,
    grid: Grid,
    args: &[Owned],
    addresses: &[u64],
    order: Order,
) -> Result<(), String> {
    let mut addresses = addresses.iter().copied();
    let mut signature = String::new();
    // Each argument as the 8 bytes that hold its value from the front.
    let mut values: Vec<u64> = Vec::new();
    for arg in args {
        let (letter, value) = match arg {
            Owned::In(_) => ('r', addresses.next().unwrap_or(0)),
            Owned::Out(_) => ('w', addresses.next().unwrap_or(0)),
            Owned::Changed(_) => continue,
            Owned::U32(value) => ('i', u64::from(*value)),
            Owned::U64(value) => ('l', *value),
            Owned::F32(value) => ('f', u64::from(value.to_bits())),
        };
        signature.push(letter);
        values.push(value);
    }
    let mut pointers: Vec<*mut c_void> =
        values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
    let text = |text: &str| CString::new(text).map_err(|error| error.to_string());
    let (entry, parameters) = (text(name)?, text(&signature)?);
    let lock = ONE_AT_A_TIME.lock().map_err(|error| error.to_string())?;
    // SAFETY: the strings and the values outlive the call; the addresses are of tensors that the caller
    // holds, and the kernel's name and parameters are compared on the other side.
    let code = unsafe {
        moco_emulate(
            entry.as_ptr(),
            parameters.as_ptr(),
            grid.blocks.as_ptr(),
            grid.threads,
            grid.shared_bytes,
            c_int::from(order == Order::Falling),
            pointers.as_mut_ptr(),
        )
    };
    drop(lock);
    match code {
        0 => Ok(()),
        1 => Err("there is no such kernel".into()),
        2 => Err(format!("its parameters are not `{signature}`")),
        _ => Err("some of its threads wait for others that never come".into()),
    }
}
