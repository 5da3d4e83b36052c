//! Pixels on their way to a device while it computes: which buffer may be written when.
//!
//! Copies have a stream of their own. A buffer is a piece of pinned memory and as much on the device;
//! it goes round between three parties that wait for each other through two marks:
//!
//! - the host writes once the last copy out of the pinned memory is done;
//! - the copy starts once the computation that reads the device's memory is done;
//! - the computation starts once the copy is done.
//!
//! There are as many buffers as the most uploads pending at one time, so that a steady state allocates none.

use std::sync::{Mutex, PoisonError};

use crate::error::OpError;

/// Streams and memory of a device.
pub(crate) trait Transfers {
    /// Pinned memory, memory on the device, and the marks.
    type Buffer;

    /// A buffer of so many bytes; its marks come after its allocation.
    fn buffer(&self, bytes: usize) -> Result<Self::Buffer, OpError>;

    /// Bytes of a buffer.
    fn len(&self, buffer: &Self::Buffer) -> usize;

    /// Makes the host wait for the last copy.
    fn host_waits_for_copy(&self, buffer: &Self::Buffer) -> Result<(), OpError>;

    /// Writes into the pinned memory.
    fn write(&self, buffer: &mut Self::Buffer, bytes: &[u8]) -> Result<(), OpError>;

    /// Makes further copies wait for the last computation.
    fn copy_waits_for_computation(&self, buffer: &Self::Buffer) -> Result<(), OpError>;

    /// Queues the copy and sets its mark.
    fn copy(&self, buffer: &Self::Buffer) -> Result<(), OpError>;

    /// Makes further computation wait for the copy.
    fn computation_waits_for_copy(&self, buffer: &Self::Buffer) -> Result<(), OpError>;

    /// Sets the mark of the computation after all that was queued.
    fn mark_computation(&self, buffer: &Self::Buffer) -> Result<(), OpError>;
}

/// Buffers that nobody holds, and the streams.
#[derive(Debug)]
pub(crate) struct Uploads<T: Transfers> {
    transfers: T,
    free: Mutex<Vec<T::Buffer>>,
}

impl<T: Transfers> Uploads<T> {
    pub(crate) fn new(transfers: T) -> Self {
        Self { transfers, free: Mutex::new(Vec::new()) }
    }

    /// Starts the upload of `bytes`; the buffer goes back by [`Self::compute`].
    pub(crate) fn start(&self, bytes: &[u8]) -> Result<T::Buffer, OpError> {
        let transfers = &self.transfers;
        let mut buffer = match self.take(bytes.len()) {
            Some(buffer) => buffer,
            None => transfers.buffer(bytes.len())?,
        };
        transfers.host_waits_for_copy(&buffer)?;
        transfers.write(&mut buffer, bytes)?;
        transfers.copy_waits_for_computation(&buffer)?;
        transfers.copy(&buffer)?;
        Ok(buffer)
    }

    /// Queues a computation on what was uploaded.
    pub(crate) fn compute<R>(
        &self,
        buffer: T::Buffer,
        work: impl FnOnce(&T::Buffer) -> Result<R, OpError>,
    ) -> Result<R, OpError> {
        self.transfers.computation_waits_for_copy(&buffer)?;
        let result = work(&buffer)?;
        self.transfers.mark_computation(&buffer)?;
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        Ok(result)
    }

    fn take(&self, len: usize) -> Option<T::Buffer> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        // The one that was given back first: its copy and computation are the likeliest to be done.
        let place = free.iter().position(|buffer| self.transfers.len(buffer) == len)?;
        Some(free.remove(place))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// Records what it is asked for.
    #[derive(Default)]
    struct Recording {
        log: RefCell<Vec<String>>,
        made: Cell<usize>,
        full: Cell<bool>,
    }

    struct Numbered {
        number: usize,
        bytes: Vec<u8>,
    }

    impl Recording {
        fn note(&self, what: &str, buffer: &Numbered) -> Result<(), OpError> {
            self.log.borrow_mut().push(format!("{what} {}", buffer.number));
            Ok(())
        }
    }

    impl Transfers for Recording {
        type Buffer = Numbered;

        fn buffer(&self, bytes: usize) -> Result<Numbered, OpError> {
            if self.full.get() {
                let what = "out of memory".into();
                return Err(OpError::Library { op: "upload", library: "the CUDA driver", what });
            }
            let number = self.made.replace(self.made.get() + 1);
            Ok(Numbered { number, bytes: vec![0; bytes] })
        }

        fn len(&self, buffer: &Numbered) -> usize {
            buffer.bytes.len()
        }

        fn host_waits_for_copy(&self, buffer: &Numbered) -> Result<(), OpError> {
            self.note("host waits", buffer)
        }

        fn write(&self, buffer: &mut Numbered, bytes: &[u8]) -> Result<(), OpError> {
            buffer.bytes.copy_from_slice(bytes);
            self.note("write", buffer)
        }

        fn copy_waits_for_computation(&self, buffer: &Numbered) -> Result<(), OpError> {
            self.note("copies wait", buffer)
        }

        fn copy(&self, buffer: &Numbered) -> Result<(), OpError> {
            self.note("copy", buffer)
        }

        fn computation_waits_for_copy(&self, buffer: &Numbered) -> Result<(), OpError> {
            self.note("computation waits", buffer)
        }

        fn mark_computation(&self, buffer: &Numbered) -> Result<(), OpError> {
            self.note("mark", buffer)
        }
    }

    fn log(uploads: &Uploads<Recording>) -> String {
        uploads.transfers.log.take().join(", ")
    }

    #[test]
    fn each_party_waits_for_the_one_before() {
        let uploads = Uploads::new(Recording::default());
        let buffer = uploads.start(&[1, 2, 3]).unwrap();
        assert_eq!(log(&uploads), "host waits 0, write 0, copies wait 0, copy 0");
        let sum = uploads.compute(buffer, |buffer| {
            uploads.transfers.note("compute", buffer)?;
            Ok(buffer.bytes.iter().sum::<u8>())
        });
        assert_eq!(sum.unwrap(), 6);
        assert_eq!(log(&uploads), "computation waits 0, compute 0, mark 0");
    }

    #[test]
    fn buffers_under_way_are_not_written_and_free_ones_are_used_again() {
        let uploads = Uploads::new(Recording::default());
        let [a, b] = [[1; 4], [2; 4]].map(|bytes| uploads.start(&bytes).unwrap());
        assert_eq!([a.number, b.number], [0, 1]);
        uploads.compute(b, |_| Ok(())).unwrap();
        uploads.compute(a, |_| Ok(())).unwrap();
        // In the order in which they were given back.
        let numbers = [uploads.start(&[3; 4]).unwrap(), uploads.start(&[4; 4]).unwrap()];
        assert_eq!(numbers.map(|buffer| buffer.number), [1, 0]);
        assert_eq!(uploads.transfers.made.get(), 2);
    }

    #[test]
    fn another_size_gets_a_buffer_of_its_own() {
        let uploads = Uploads::new(Recording::default());
        let small = uploads.start(&[0; 2]).unwrap();
        uploads.compute(small, |_| Ok(())).unwrap();
        assert_eq!(uploads.start(&[0; 5]).unwrap().number, 1);
        assert_eq!(uploads.start(&[0; 2]).unwrap().number, 0);
    }

    #[test]
    fn a_device_without_room_is_an_error_and_a_failed_computation_gives_no_buffer_back() {
        let uploads = Uploads::new(Recording::default());
        let buffer = uploads.start(&[0; 2]).unwrap();
        let failed: Result<(), OpError> = uploads.compute(buffer, |_| {
            let what = "launch failed".into();
            Err(OpError::Library { op: "normalize_images", library: "the CUDA driver", what })
        });
        assert!(failed.unwrap_err().to_string().contains("launch failed"));
        uploads.transfers.full.set(true);
        let error = uploads.start(&[0; 2]).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("out of memory"), "{error}");
    }
}
