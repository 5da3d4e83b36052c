//! The emulator's log of launches, for its tests.

use std::cell::RefCell;
use std::rc::Rc;

/// Names of the kernels that were launched, in order.
pub(crate) type Launched = Rc<RefCell<Vec<String>>>;
