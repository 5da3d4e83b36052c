//! Results that tasks write together.

/// A pointer that tasks share because each writes elements of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared<T>(pub(super) *mut T);
// SAFETY: users write disjoint elements only, as their comments say.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Where the element of this index is.
    pub(super) fn at(self, index: usize) -> *mut T {
        self.0.wrapping_add(index)
    }
}
