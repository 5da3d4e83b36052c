//! The builder: each call starts the threads of one stage and returns the lanes that leave it.

use crate::crew::Crew;
use crate::error::{PipelineError, StageError};
use crate::feed::Feed;
use crate::lanes::{Halt, Lanes, Outlet};
use crate::meter::{Meter, Spent};

/// Stages under construction; [`Pipeline::feed`] ends it.
///
/// Threads start at once and wait when their lanes are full. The lanes of every stage must go into
/// another stage or into the feed of the same pipeline.
#[derive(Debug, Default)]
pub struct Pipeline {
    crew: Crew,
}

impl Pipeline {
    /// A pipeline without stages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A stage that makes the items: one thread called `name` draws them from `items` and spreads them
    /// over `n_lanes` channels that hold `capacity` each. It ends with the iterator or at its first
    /// error.
    ///
    /// # Errors
    /// No lanes, or the thread cannot start.
    pub fn source<T: Send + 'static>(
        &mut self,
        name: &str,
        n_lanes: usize,
        capacity: usize,
        items: impl Iterator<Item = Result<T, StageError>> + Send + 'static,
    ) -> Result<Lanes<T>, PipelineError> {
        let (outlet, output) = self.open(name, n_lanes, capacity)?;
        let (stage, meter) = (name.to_owned(), outlet.meter());
        let mut items = items;
        self.crew.spawn(name.to_owned(), outlet, move |outlet| {
            loop {
                outlet.check()?;
                match meter.time(Spent::Busy, || items.next()) {
                    Some(Ok(item)) => outlet.send(item)?,
                    Some(Err(source)) => return Err(Halt::failed(&stage, source)),
                    None => return Ok(()),
                }
            }
        })?;
        Ok(output)
    }

    /// A stage that turns each item into one: a worker thread for each lane, called `name-0`, `name-1`
    /// and so on. `make(worker_idx)` builds a worker's function, so that it can own buffers.
    ///
    /// # Errors
    /// A thread cannot start.
    pub fn map<A, B, F>(
        &mut self,
        name: &str,
        lanes: Lanes<A>,
        capacity: usize,
        mut make: impl FnMut(usize) -> F,
    ) -> Result<Lanes<B>, PipelineError>
    where
        A: Send + 'static,
        B: Send + 'static,
        F: FnMut(A) -> Result<B, StageError> + Send + 'static,
    {
        let (outlet, output) = self.open(name, lanes.n_lanes(), capacity)?;
        for (worker_idx, (outlet, mut lane)) in outlet.split().zip(lanes.split()).enumerate() {
            let worker = format!("{name}-{worker_idx}");
            let (stage, meter, mut work) = (worker.clone(), outlet.meter(), make(worker_idx));
            self.crew.spawn(worker, outlet, move |outlet| {
                while let Some(item) = lane.take(&meter).map_err(Halt::Fault)? {
                    outlet.check()?;
                    outlet.send(run(&meter, &stage, || work(item))?)?;
                }
                Ok(())
            })?;
        }
        Ok(output)
    }

    /// A stage that changes nothing but the number of lanes, so that the stages before and after it may
    /// differ in their number of workers.
    ///
    /// # Errors
    /// No lanes, or the thread cannot start.
    pub fn deal<T: Send + 'static>(
        &mut self,
        name: &str,
        lanes: Lanes<T>,
        n_lanes: usize,
        capacity: usize,
    ) -> Result<Lanes<T>, PipelineError> {
        let (outlet, output) = self.open(name, n_lanes, capacity)?;
        let (mut lanes, meter) = (lanes, outlet.meter());
        self.crew.spawn(name.to_owned(), outlet, move |outlet| {
            while let Some(item) = lanes.take(&meter).map_err(Halt::Fault)? {
                outlet.check()?;
                outlet.send(item)?;
            }
            Ok(())
        })?;
        Ok(output)
    }

    /// A stage that collects `size` items and makes one of them, on one thread and into one lane. An
    /// incomplete last batch is dropped.
    ///
    /// # Errors
    /// A size of zero, or the thread cannot start.
    pub fn batch<A, B>(
        &mut self,
        name: &str,
        lanes: Lanes<A>,
        size: usize,
        capacity: usize,
        make: impl FnMut(Vec<A>) -> Result<B, StageError> + Send + 'static,
    ) -> Result<Lanes<B>, PipelineError>
    where
        A: Send + 'static,
        B: Send + 'static,
    {
        positive(name, "a batch size", size)?;
        let (outlet, output) = self.open(name, 1, capacity)?;
        let (mut lanes, mut make) = (lanes, make);
        let (stage, meter) = (name.to_owned(), outlet.meter());
        self.crew.spawn(name.to_owned(), outlet, move |outlet| {
            let mut batch = Vec::with_capacity(size);
            while let Some(item) = lanes.take(&meter).map_err(Halt::Fault)? {
                outlet.check()?;
                batch.push(item);
                if batch.len() == size {
                    let full = std::mem::replace(&mut batch, Vec::with_capacity(size));
                    outlet.send(run(&meter, &stage, || make(full))?)?;
                }
            }
            Ok(())
        })?;
        Ok(output)
    }

    /// The consumer's end of the last stage. It takes over every thread of the pipeline.
    #[must_use]
    pub fn feed<T>(mut self, lanes: Lanes<T>) -> Feed<T> {
        let meter = self.crew.meter("consumer");
        Feed::new(lanes, self.crew, meter)
    }

    fn open<T>(
        &mut self,
        stage: &str,
        n_lanes: usize,
        capacity: usize,
    ) -> Result<(Outlet<T>, Lanes<T>), PipelineError> {
        positive(stage, "a number of lanes", n_lanes)?;
        let meter = self.crew.meter(stage);
        Ok(Outlet::open(n_lanes, capacity, meter, self.crew.stop_flag()))
    }
}

fn run<B>(
    meter: &Meter,
    stage: &str,
    work: impl FnOnce() -> Result<B, StageError>,
) -> Result<B, Halt> {
    meter.time(Spent::Busy, work).map_err(|source| Halt::failed(stage, source))
}

fn positive(stage: &str, what: &'static str, size: usize) -> Result<(), PipelineError> {
    if size == 0 {
        return Err(PipelineError::Zero { stage: stage.to_owned(), what });
    }
    Ok(())
}
