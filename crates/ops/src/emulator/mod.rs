//! Operations on tensors of the CPU as if they were on a GPU, for tests.

#[cfg(not(feature = "device-tests"))]
mod host;
pub(crate) mod launched;
#[cfg_attr(
    feature = "device-tests",
    expect(
        dead_code,
        reason = "a device has addresses of its own, and margins are the emulator's"
    )
)]
pub(crate) mod memory;

use std::cell::RefCell;
use std::rc::Rc;

use self::launched::Launched;
use crate::gpu::Gpu;

thread_local! {
    static CURRENT: RefCell<Option<Rc<dyn Gpu>>> = const { RefCell::new(None) };
}

/// Does `work` with operations on f32 and bf16 tensors of the CPU emulated; gives its result and the
/// names of the kernels that were launched, in order. With the feature `device-tests` the first CUDA
/// device computes in the emulator's place.
pub fn emulate<R>(work: impl FnOnce() -> R) -> (R, Vec<String>) {
    let launched = Launched::default();
    #[cfg(feature = "device-tests")]
    let gpu = crate::cuda::proxy::Proxy::new(Rc::clone(&launched));
    #[cfg(not(feature = "device-tests"))]
    let gpu = host::Emulator::new(Rc::clone(&launched));
    let before = CURRENT.replace(Some(Rc::new(gpu)));
    let result = work();
    CURRENT.replace(before);
    (result, launched.take())
}

/// The emulator of this thread, inside [`emulate`].
pub(crate) fn current() -> Option<Rc<dyn Gpu>> {
    CURRENT.with_borrow(Clone::clone)
}
