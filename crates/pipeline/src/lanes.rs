//! The channels between two stages and the round robin on both of their ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, RecvError, SendError, Sender};

use crate::error::{PipelineError, StageError};
use crate::meter::{Meter, Spent};

/// An item, or the failure that takes the slot of the item it prevented.
type Slot<T> = Result<T, PipelineError>;

/// The n channels that leave a stage; item s is in lane s mod n.
///
/// A stage or a [`crate::Feed`] takes them over; there is no way to read them out of order.
#[derive(Debug)]
pub struct Lanes<T> {
    receivers: Vec<Receiver<Slot<T>>>,
    next: usize,
}

/// Why a stage stops early.
pub(crate) enum Halt {
    /// Nobody wants its items any more: no fault.
    Cut,
    /// It failed, or a stage before it did.
    Fault(PipelineError),
}

impl Halt {
    pub(crate) fn failed(stage: &str, source: StageError) -> Self {
        Self::Fault(PipelineError::failed(stage, source))
    }
}

impl<T> Lanes<T> {
    /// How many lanes there are.
    #[must_use]
    pub fn n_lanes(&self) -> usize {
        self.receivers.len()
    }

    /// One set of lanes for each lane, to be read by a worker of its own.
    pub(crate) fn split(self) -> impl Iterator<Item = Self> {
        self.receivers.into_iter().map(|receiver| Self { receivers: vec![receiver], next: 0 })
    }

    /// The next item in order, `None` at the end of the data.
    pub(crate) fn take(&mut self, meter: &Meter) -> Result<Option<T>, PipelineError> {
        let Some(lane) = self.receivers.get(self.next) else { return Ok(None) };
        match meter.time(Spent::WaitingIn, || lane.recv()) {
            Ok(slot) => {
                self.next = (self.next + 1) % self.receivers.len();
                slot.map(Some)
            }
            // Items are dealt in order, so where one is missing no later one exists.
            Err(RecvError) => Ok(None),
        }
    }

    /// Lets go of the channels, so that nobody waits to send into them.
    pub(crate) fn close(&mut self) {
        self.receivers.clear();
    }
}

/// The sending end of a stage's lanes, or of one of them for a worker.
pub(crate) struct Outlet<T> {
    senders: Vec<Sender<Slot<T>>>,
    next: usize,
    meter: Arc<Meter>,
    stop: Arc<AtomicBool>,
}

impl<T> Outlet<T> {
    /// Opens `n_lanes` channels that hold `capacity` items each. The stage stops once `stop` is set.
    pub(crate) fn open(
        n_lanes: usize,
        capacity: usize,
        meter: Arc<Meter>,
        stop: Arc<AtomicBool>,
    ) -> (Self, Lanes<T>) {
        let (senders, receivers) =
            (0..n_lanes).map(|_| crossbeam_channel::bounded(capacity)).unzip();
        (Self { senders, next: 0, meter, stop }, Lanes { receivers, next: 0 })
    }

    /// One outlet for each lane, to be filled by a worker of its own.
    pub(crate) fn split(self) -> impl Iterator<Item = Self> {
        let Self { senders, next, meter, stop } = self;
        senders.into_iter().map(move |sender| {
            let (meter, stop) = (Arc::clone(&meter), Arc::clone(&stop));
            Self { senders: vec![sender], next, meter, stop }
        })
    }

    pub(crate) fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    /// Hands an item on, waiting for room.
    pub(crate) fn send(&mut self, item: T) -> Result<(), Halt> {
        let meter = Arc::clone(&self.meter);
        meter.time(Spent::WaitingOut, || self.send_slot(Ok(item)))?;
        self.meter.count_item();
        Ok(())
    }

    /// Puts the failure where the next item would have been.
    pub(crate) fn fail(&mut self, fault: PipelineError) -> Result<(), Halt> {
        self.send_slot(Err(fault))
    }

    /// Fails once the consumer has gone: a stage asks before it begins an item, because the channel it
    /// sends into closes only after the stages further down have noticed.
    pub(crate) fn check(&self) -> Result<(), Halt> {
        if self.stop.load(Ordering::Relaxed) { Err(Halt::Cut) } else { Ok(()) }
    }

    fn send_slot(&mut self, slot: Slot<T>) -> Result<(), Halt> {
        let lane = self.senders.get(self.next).ok_or(Halt::Cut)?;
        lane.send(slot).map_err(|SendError(_)| Halt::Cut)?;
        self.next = (self.next + 1) % self.senders.len();
        Ok(())
    }
}
