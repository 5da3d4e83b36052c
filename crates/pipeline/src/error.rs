//! The errors of stages and of the consumer, and how a panic becomes an error.

use std::any::Any;
use std::error::Error;
use std::ops::Deref;
use std::sync::Arc;

/// Whatever error a stage's own function has.
pub type StageError = Box<dyn Error + Send + Sync>;

/// Why a pipeline or a sink ended before its data did.
///
/// It can be cloned, because a failure is the answer of every later call too.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// A stage's function returned an error.
    #[error("stage `{stage}`: {source}")]
    Failed {
        /// The thread's name, such as `decode-1`.
        stage: String,
        /// The error that the function returned.
        source: Cause,
    },
    /// A stage's function panicked.
    #[error("stage `{stage}` panicked: {message}")]
    Panicked {
        /// The thread's name.
        stage: String,
        /// The panic's message.
        message: String,
    },
    /// The operating system refused a thread.
    #[error("cannot start the thread of stage `{stage}`: {source}")]
    Spawn {
        /// The thread's name.
        stage: String,
        /// The operating system's answer.
        source: Cause,
    },
    /// A stage was asked for with a size of zero.
    #[error("stage `{stage}`: expected {what} of at least 1, got 0")]
    Zero {
        /// The stage's name.
        stage: String,
        /// Which size it is.
        what: &'static str,
    },
    /// A stage stopped before its data ended though nothing had failed, for instance because the lanes
    /// it wrote to were dropped instead of being fed.
    #[error("stage `{stage}` was cut off before its data ended")]
    Closed {
        /// The thread's name.
        stage: String,
    },
}

/// A stage's error, shared so that it can be reported more than once.
///
/// It derefs to the error, and [`Error::source`] of the [`PipelineError`] yields the error itself, so
/// `downcast_ref` finds the stage's own type.
#[derive(Debug, Clone)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl Deref for Cause {
    type Target = dyn Error + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<StageError> for Cause {
    fn from(error: StageError) -> Self {
        Self(Arc::from(error))
    }
}

impl PipelineError {
    pub(crate) fn failed(stage: &str, source: StageError) -> Self {
        Self::Failed { stage: stage.to_owned(), source: source.into() }
    }

    pub(crate) fn spawn(stage: &str, source: std::io::Error) -> Self {
        Self::Spawn { stage: stage.to_owned(), source: Cause(Arc::new(source)) }
    }

    pub(crate) fn closed(stage: &str) -> Self {
        Self::Closed { stage: stage.to_owned() }
    }

    /// The payload is a string unless somebody called `panic_any`.
    pub(crate) fn panicked(stage: &str, payload: &(dyn Any + Send)) -> Self {
        let message = if let Some(text) = payload.downcast_ref::<&str>() {
            (*text).to_owned()
        } else if let Some(text) = payload.downcast_ref::<String>() {
            text.clone()
        } else {
            "a value that is not text".to_owned()
        };
        Self::Panicked { stage: stage.to_owned(), message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_name_the_stage() {
        let io = || std::io::Error::other("no more threads");
        for (error, expected) in [
            (PipelineError::failed("read", Box::new(io())), "stage `read`: no more threads"),
            (PipelineError::panicked("read", &"boom"), "stage `read` panicked: boom"),
            (PipelineError::panicked("read", &"boom".to_owned()), "stage `read` panicked: boom"),
            (
                PipelineError::panicked("read", &7_u8),
                "stage `read` panicked: a value that is not text",
            ),
            (
                PipelineError::spawn("read", io()),
                "cannot start the thread of stage `read`: no more threads",
            ),
            (PipelineError::closed("read"), "stage `read` was cut off before its data ended"),
            (
                PipelineError::Zero { stage: "read".to_owned(), what: "a number of lanes" },
                "stage `read`: expected a number of lanes of at least 1, got 0",
            ),
        ] {
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn the_source_is_the_stages_own_type_and_so_is_a_clones() {
        let error = PipelineError::failed("read", Box::new(std::io::Error::other("disk")));
        for error in [error.clone(), error] {
            let source = error.source().unwrap();
            assert_eq!(source.downcast_ref::<std::io::Error>().unwrap().to_string(), "disk");
        }
    }
}
