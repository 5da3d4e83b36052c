//! A thread at the end of a run, such as a writer of metrics or checkpoints.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, SendError, Sender, bounded};

use crate::error::{PipelineError, StageError};
use crate::meter::{Meter, Spent, StageReport};

/// Runs a function over what it is sent, on one thread behind one bounded channel.
///
/// Dropping it waits until everything sent has been processed; [`Sink::finish`] also returns whether
/// that succeeded.
#[derive(Debug)]
pub struct Sink<T> {
    name: String,
    sender: Option<Sender<Message<T>>>,
    thread: Option<JoinHandle<()>>,
    fault: Arc<OnceLock<PipelineError>>,
    meter: Arc<Meter>,
}

/// How often a flush looks whether the thread has failed.
const FLUSH_LOOK: Duration = Duration::from_millis(20);

/// A message to the thread.
#[derive(Debug)]
enum Message<T> {
    Item(T),
    /// Answered once everything before it has been processed.
    Flush(Sender<()>),
}

impl<T: Send + 'static> Sink<T> {
    /// Starts a thread called `name` that gives each item to `work` until the first error. A `capacity`
    /// of 0 is a rendezvous: [`Sink::send`] then waits until the item before has been processed.
    ///
    /// # Errors
    /// The thread cannot start.
    pub fn spawn(
        name: &str,
        capacity: usize,
        work: impl FnMut(T) -> Result<(), StageError> + Send + 'static,
    ) -> Result<Self, PipelineError> {
        let (sender, receiver) = bounded(capacity);
        let (fault, meter) = (Arc::new(OnceLock::new()), Arc::new(Meter::new(name)));
        let (slot, gauge, stage) = (Arc::clone(&fault), Arc::clone(&meter), name.to_owned());
        let run = move || {
            let _span = tracing::debug_span!("stage", name = stage).entered();
            tracing::debug!("started");
            let mut work = work;
            let inbox = &receiver;
            let ended = catch_unwind(AssertUnwindSafe(move || -> Result<(), StageError> {
                while let Ok(message) = gauge.time(Spent::WaitingIn, || inbox.recv()) {
                    match message {
                        Message::Item(item) => {
                            gauge.time(Spent::Busy, || work(item))?;
                            gauge.count_item();
                        }
                        // Whoever waits for the answer may have gone.
                        Message::Flush(answer) => drop(answer.send(())),
                    }
                }
                Ok(())
            }));
            // The fault is set while the channel is still open: whoever finds it closed can read why.
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(source)) => {
                    slot.get_or_init(|| PipelineError::failed(&stage, source));
                }
                Err(payload) => {
                    slot.get_or_init(|| PipelineError::panicked(&stage, &*payload));
                }
            }
            match slot.get() {
                None => tracing::debug!("processed everything"),
                Some(fault) => tracing::debug!("ended by a fault: {fault}"),
            }
            drop(receiver);
        };
        let thread = Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .map_err(|source| PipelineError::spawn(name, source))?;
        let name = name.to_owned();
        Ok(Self { name, sender: Some(sender), thread: Some(thread), fault, meter })
    }

    /// Hands an item over, waiting while the channel is full.
    ///
    /// # Errors
    /// What made the thread end, on this and on every later call; the item is then lost, as are those
    /// that were waiting in the channel.
    pub fn send(&self, item: T) -> Result<(), PipelineError> {
        self.post(Message::Item(item))
    }

    /// Waits until everything sent so far has been processed; the thread continues.
    ///
    /// # Errors
    /// What made the thread end, on this and on every later call.
    pub fn flush(&self) -> Result<(), PipelineError> {
        let (answer, answered) = bounded(1);
        self.post(Message::Flush(answer))?;
        loop {
            match answered.recv_timeout(FLUSH_LOOK) {
                Ok(()) => return Ok(()),
                // A message that the thread left behind when it failed stays in the channel, and with it
                // the other end of this one: only the fault shows that no answer will come.
                Err(RecvTimeoutError::Timeout) if self.fault.get().is_none() => {}
                Err(_) => return Err(self.why_closed()),
            }
        }
    }

    fn post(&self, message: Message<T>) -> Result<(), PipelineError> {
        let sender = self.sender.as_ref().ok_or_else(|| self.why_closed())?;
        sender.send(message).map_err(|SendError(_)| self.why_closed())
    }

    fn why_closed(&self) -> PipelineError {
        self.fault.get().cloned().unwrap_or_else(|| PipelineError::closed(&self.name))
    }

    /// Waits until everything sent has been processed.
    ///
    /// # Errors
    /// What made the thread end before that.
    pub fn finish(mut self) -> Result<(), PipelineError> {
        self.close();
        self.fault.get().cloned().map_or(Ok(()), Err)
    }

    /// The work of the thread so far.
    #[must_use]
    pub fn meter(&self) -> StageReport {
        self.meter.report()
    }
}

impl<T> Sink<T> {
    fn close(&mut self) {
        self.sender = None;
        if let Some(Err(payload)) = self.thread.take().map(JoinHandle::join) {
            self.fault.get_or_init(|| PipelineError::panicked(&self.name, &*payload));
        }
    }
}

impl<T> Drop for Sink<T> {
    fn drop(&mut self) {
        self.close();
    }
}
