//! Memory of tensors, kept for the next step.
//!
//! A training step frees and allocates the same buffers over and over. A general allocator gives large
//! ones back to the operating system, which then clears each page again when it is touched: a tenth of a
//! step. So freed blocks wait here for a request of their size, and a steady state asks the system for
//! nothing.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Smaller blocks are left to the inner allocator.
const SMALLEST: usize = 1 << 16;
/// Sizes in each doubling: a block is at most an eighth larger than asked for.
const STEPS: usize = 8;
const CLASSES: usize = 30 * STEPS;
/// Blocks that start on a huge page, so that the system can map them as such.
const HUGE_PAGE: usize = 2 << 20;

/// A global allocator that keeps freed blocks of 64 KiB and more for requests of the same size, on top of
/// another allocator. When a request misses, it gives blocks back until it holds at most half more, in
/// use and kept, than ever was in use at once.
///
/// ```
/// # use std::alloc::System;
/// #[global_allocator]
/// static ALLOCATOR: moco_ops::Recycler<System> = moco_ops::Recycler::new(System);
/// ```
#[derive(Debug)]
pub struct Recycler<A> {
    inner: A,
    kept: Mutex<Kept>,
}

/// Freed blocks of each class; the first word of a block points to the next one.
#[derive(Debug)]
struct Kept {
    first: [Block; CLASSES],
    bytes_kept: usize,
    bytes_in_use: usize,
    /// The most that ever was in use.
    peak: usize,
}

#[derive(Debug, Clone, Copy)]
struct Block(*mut u8);
// SAFETY: a kept block belongs to nobody but the list it is in, which a mutex guards.
unsafe impl Send for Block {}

impl<A: GlobalAlloc> Recycler<A> {
    /// Nothing kept yet.
    pub const fn new(inner: A) -> Self {
        let first = [Block(std::ptr::null_mut()); CLASSES];
        Self { inner, kept: Mutex::new(Kept { first, bytes_kept: 0, bytes_in_use: 0, peak: 0 }) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while the lock is held.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A kept block of the class; if there is none, the next thing is to ask the inner allocator, so
    /// that what is kept too much is given back to it.
    fn reuse(&self, class: Class) -> Option<*mut u8> {
        let mut kept = self.kept();
        kept.bytes_in_use += class.size;
        kept.peak = kept.peak.max(kept.bytes_in_use);
        let block = kept.first[class.index].0;
        if block.is_null() {
            // SAFETY: the blocks came from the inner allocator with the layout of their class.
            unsafe { kept.shrink(&self.inner) };
            return None;
        }
        // SAFETY: a kept block is at least one word long and starts with the next one's address.
        kept.first[class.index] = Block(unsafe { block.cast::<*mut u8>().read() });
        kept.bytes_kept -= class.size;
        Some(block)
    }

    /// The inner allocator's block.
    fn fresh(&self, class: Class, block: *mut u8) -> *mut u8 {
        if block.is_null() {
            self.kept().bytes_in_use -= class.size;
        } else {
            ask_for_huge_pages(block, class.size);
        }
        block
    }
}

/// Fewer, larger pages: activations are many megabytes and are read from end to end.
fn ask_for_huge_pages(block: *mut u8, size: usize) {
    #[cfg(target_os = "linux")]
    if size >= HUGE_PAGE {
        let whole = size / HUGE_PAGE * HUGE_PAGE;
        // SAFETY: the pages are inside the block, and the advice changes no content.
        let advised =
            unsafe { rustix::mm::madvise(block.cast(), whole, rustix::mm::Advice::LinuxHugepage) };
        // A system without huge pages works as well, with small ones.
        advised.ok();
    }
}

impl Kept {
    /// Gives blocks back, largest first, until what is held is at most half above the peak.
    ///
    /// # Safety
    /// The kept blocks came from `inner` with the layout of their class.
    unsafe fn shrink(&mut self, inner: &impl GlobalAlloc) {
        for index in (0..CLASSES).rev() {
            let class = Class::of_index(index);
            let held = |kept: &Self| kept.bytes_kept + kept.bytes_in_use;
            while held(self) > self.peak / 2 * 3 && !self.first[index].0.is_null() {
                let block = self.first[index].0;
                // SAFETY: promised by the caller.
                unsafe {
                    self.first[index] = Block(block.cast::<*mut u8>().read());
                    inner.dealloc(block, class.layout());
                }
                self.bytes_kept -= class.size;
            }
        }
    }
}

/// A size that blocks are rounded up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class {
    index: usize,
    size: usize,
}

impl Class {
    fn of_index(index: usize) -> Self {
        let base = SMALLEST << (index / STEPS);
        Self { index, size: base + base / STEPS * (index % STEPS) }
    }

    /// The smallest class for a request; `None` if the request is not for this allocator.
    fn of(layout: Layout) -> Option<Self> {
        let size = layout.size();
        if size < SMALLEST || layout.align() > 64 {
            return None;
        }
        let doublings = (size / SMALLEST).ilog2() as usize;
        let step = (SMALLEST << doublings) / STEPS;
        let index = doublings * STEPS + (size - (SMALLEST << doublings)).div_ceil(step);
        (index < CLASSES).then(|| Self::of_index(index))
    }

    fn layout(self) -> Layout {
        let align = if self.size >= HUGE_PAGE { HUGE_PAGE } else { 64 };
        // SAFETY: both are powers of two, and sizes of classes are far below `isize::MAX`.
        unsafe { Layout::from_size_align_unchecked(self.size, align) }
    }
}

// SAFETY: blocks are those of the inner allocator, at least as large and aligned as asked for, and each is
// in the hands of one owner or in one list.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Recycler<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = Class::of(layout) else {
            // SAFETY: the caller's promise is passed on.
            return unsafe { self.inner.alloc(layout) };
        };
        // SAFETY: the layout of a class has a size.
        self.reuse(class)
            .unwrap_or_else(|| self.fresh(class, unsafe { self.inner.alloc(class.layout()) }))
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(class) = Class::of(layout) else {
            // SAFETY: the caller's promise is passed on.
            return unsafe { self.inner.alloc_zeroed(layout) };
        };
        match self.reuse(class) {
            Some(block) => {
                // SAFETY: the block has the size of its class, which is at least the layout's.
                unsafe { block.write_bytes(0, layout.size()) };
                block
            }
            // SAFETY: the layout of a class has a size.
            None => self.fresh(class, unsafe { self.inner.alloc_zeroed(class.layout()) }),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(class) = Class::of(layout) else {
            // SAFETY: it came from there.
            return unsafe { self.inner.dealloc(block, layout) };
        };
        let mut kept = self.kept();
        // SAFETY: nobody uses the block any more, and it has room for a word.
        unsafe { block.cast::<*mut u8>().write(kept.first[class.index].0) };
        kept.first[class.index] = Block(block);
        kept.bytes_kept += class.size;
        kept.bytes_in_use -= class.size;
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts the blocks that are out.
    struct Counting(AtomicUsize);
    // SAFETY: the system's allocator does the work.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            self.0.fetch_add(1, Ordering::Relaxed);
            // SAFETY: passed on.
            unsafe { System.alloc(layout) }
        }
        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            self.0.fetch_sub(1, Ordering::Relaxed);
            // SAFETY: passed on.
            unsafe { System.dealloc(block, layout) }
        }
    }

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    #[test]
    fn a_class_is_the_next_size_and_at_most_an_eighth_larger() {
        for size in [SMALLEST, SMALLEST + 1, 100_000, 1 << 20, (1 << 20) + 5, 3 << 30] {
            let class = Class::of(layout(size)).unwrap();
            assert!(class.size >= size && class.size - size <= size / STEPS, "{size}: {class:?}");
            let below = class.index.checked_sub(1).map(Class::of_index);
            assert!(below.is_none_or(|below| below.size < size), "{size}: {class:?}");
        }
        assert_eq!(Class::of(layout(SMALLEST - 1)), None);
    }

    #[test]
    fn a_freed_block_is_used_again_and_zeroed_if_asked_for() {
        let recycler = Recycler::new(Counting(AtomicUsize::new(0)));
        let out = || recycler.inner.0.load(Ordering::Relaxed);
        // SAFETY: each block is freed once with its own layout and not used after.
        unsafe {
            let block = recycler.alloc(layout(100_000));
            block.write_bytes(7, 100_000);
            recycler.dealloc(block, layout(100_000));
            assert_eq!(out(), 1, "kept");
            // Another size of the same class.
            let again = recycler.alloc_zeroed(layout(100_001));
            assert_eq!((again, out()), (block, 1));
            let bytes = std::slice::from_raw_parts(again, 100_001);
            assert!(bytes.iter().all(|byte| *byte == 0));
            recycler.dealloc(again, layout(100_001));
            // Nothing is in use, and with this block of another class too much would be held.
            let other = recycler.alloc(layout(3 << 15));
            assert_eq!(out(), 1);
            recycler.dealloc(other, layout(3 << 15));
            let small = recycler.alloc(layout(100));
            recycler.dealloc(small, layout(100));
            assert_eq!(out(), 1, "a small block is never kept");
        }
    }

    #[test]
    fn a_second_round_asks_for_nothing_and_other_sizes_push_out_what_is_kept() {
        let recycler = Recycler::new(Counting(AtomicUsize::new(0)));
        let out = || recycler.inner.0.load(Ordering::Relaxed);
        let round = |sizes: &[usize]| {
            // SAFETY: each block is freed once with its own layout and not used after.
            unsafe {
                let blocks: Vec<*mut u8> =
                    sizes.iter().map(|size| recycler.alloc(layout(*size))).collect();
                for (block, size) in blocks.iter().zip(sizes) {
                    recycler.dealloc(*block, layout(*size));
                }
            }
        };
        let sizes: Vec<usize> = (0..40).map(|i| (i % 9 + 1) << 17).collect();
        round(&sizes);
        assert_eq!(out(), 40);
        round(&sizes[7..]);
        round(&sizes);
        assert_eq!(out(), 40, "the same blocks");
        round(&[sizes.iter().sum()]);
        let held = recycler.kept().bytes_kept;
        assert!(held <= sizes.iter().sum::<usize>() / 4 * 7 && out() < 40, "{held} in {}", out());
    }
}
