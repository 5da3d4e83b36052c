//! Operations on tensors of the CPU as if they were on a GPU, for tests.

use std::cell::RefCell;
use std::rc::Rc;

use super::Gpu;

thread_local! {
    static CURRENT: RefCell<Option<Rc<dyn Gpu>>> = const { RefCell::new(None) };
}

/// Names of the kernels that were launched, in order.
pub(crate) type Launched = Rc<RefCell<Vec<String>>>;

/// Does `work` with operations on f32 and bf16 tensors of the CPU emulated; gives its result and the
/// names of the kernels that were launched, in order. With the feature `device-tests` the first CUDA
/// device computes in the emulator's place.
pub fn emulate<R>(work: impl FnOnce() -> R) -> (R, Vec<String>) {
    let launched = Launched::default();
    #[cfg(feature = "device-tests")]
    let gpu = crate::cuda::proxy::Proxy::new(Rc::clone(&launched));
    #[cfg(not(feature = "device-tests"))]
    let gpu = super::emulator::Emulator::new(Rc::clone(&launched));
    let before = CURRENT.replace(Some(Rc::new(gpu)));
    let result = work();
    CURRENT.replace(before);
    (result, launched.take())
}

/// The emulator of this thread, inside [`emulate`].
pub(super) fn current() -> Option<Rc<dyn Gpu>> {
    CURRENT.with_borrow(Clone::clone)
}
