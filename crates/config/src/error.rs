//! Errors that show the line they are about.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::resume_keys::RESUME_MAY_CHANGE;

/// A config could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file could not be read.
    #[error("cannot read config {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Something in a file or an override is wrong.
    #[error(transparent)]
    Invalid(#[from] Diagnostic),
    /// A file extends one that is not there.
    #[error(transparent)]
    NothingToExtend(Diagnostic),
    /// A file extends itself, or one that extends it.
    #[error(transparent)]
    ExtendsItself(Diagnostic),
    /// A file follows a table of keys that this program does not know.
    #[error(transparent)]
    Format(Diagnostic),
    /// A resumed run would become another run.
    #[error("{run} was trained with {}", would_change.join(" and "))]
    ResumeChanges {
        /// The run.
        run: String,
        /// For each key its value in the run and what would change it.
        would_change: Vec<String>,
    },
}

impl ConfigError {
    /// The error as a user should see it: several lines without a newline at the end, the source line
    /// underlined, no color codes.
    #[must_use]
    pub fn render(&self) -> String {
        match self {
            Self::Invalid(diagnostic)
            | Self::NothingToExtend(diagnostic)
            | Self::ExtendsItself(diagnostic)
            | Self::Format(diagnostic) => diagnostic.render(),
            Self::Read { source, .. } => {
                format!("error: {self}: {source}\n  = help: `configs/pretrain/` holds examples")
            }
            Self::ResumeChanges { .. } => {
                let allowed = RESUME_MAY_CHANGE.join(", ");
                let others = "--extend STEPS makes a run longer, and --fork RUN begins another one \
                              with its encoders and queue";
                format!("error: {self}\n  = help: a resume may change {allowed}; {others}")
            }
        }
    }
}

/// A message about a place in a config.
#[derive(Debug)]
pub struct Diagnostic(Box<Parts>);

#[derive(Debug)]
struct Parts {
    message: String,
    place: Place,
    label: String,
    notes: Vec<String>,
    help: Option<String>,
}

/// A range of bytes in a named text.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) span: Range<usize>,
}

/// `name:line:column`, both from 1.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = self.text.get(..self.span.start).unwrap_or(&self.text);
        let line = 1 + before.matches('\n').count();
        let column = 1 + before.rsplit('\n').next().unwrap_or("").chars().count();
        write!(f, "{}:{line}:{column}", self.name)
    }
}

impl Diagnostic {
    pub(crate) fn new(message: impl Into<String>, place: Place) -> Self {
        let (message, label) = (message.into(), String::new());
        Self(Box::new(Parts { message, place, label, notes: Vec::new(), help: None }))
    }

    /// Text after the underline.
    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.0.label = label.into();
        self
    }

    pub(crate) fn notes(mut self, notes: impl IntoIterator<Item = String>) -> Self {
        self.0.notes.extend(notes);
        self
    }

    pub(crate) fn help(mut self, help: Option<String>) -> Self {
        self.0.help = help;
        self
    }

    fn render(&self) -> String {
        let Parts { message, place, label, notes, help } = &*self.0;
        let underline = AnnotationKind::Primary.span(place.span.clone());
        let underline = if label.is_empty() { underline } else { underline.label(label) };
        let snippet = Snippet::source(&place.text).path(&place.name).annotation(underline);
        let notes = notes.iter().map(|note| Level::NOTE.message(note));
        let help = help.iter().map(|help| Level::HELP.message(help));
        let group = Level::ERROR.primary_title(message).element(snippet);
        Renderer::plain().render(&[group.elements(notes).elements(help)])
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.place, self.0.message)
    }
}

impl std::error::Error for Diagnostic {}
