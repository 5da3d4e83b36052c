//! Log lines for people: the same plain text on the console and in `run.log`.

use std::fs::{File, OpenOptions};
use std::path::Path;

use tracing::dispatcher::with_default;
use tracing::{Dispatch, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::time::{ChronoLocal, FormatTime};
use tracing_subscriber::fmt::writer::{BoxMakeWriter, MakeWriterExt};

use crate::error::TelemetryError;

/// Sends every event of this process that passes `filter` to `console` and, if a path is given, appends
/// the same bytes to that file: time, level, message and fields on one line, without escape bytes.
///
/// `console` makes a writer for each line: `std::io::stderr`, or one that first lifts a progress bar out
/// of the way. `timer` writes the time; binaries pass [`local_time`].
///
/// # Errors
/// The filter does not parse, the file cannot be opened, or logging was set up before.
pub fn init_tracing<C, T>(
    filter: &str,
    timer: T,
    console: C,
    run_log: Option<&Path>,
) -> Result<(), TelemetryError>
where
    C: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    T: FormatTime + Send + Sync + 'static,
{
    let lines = match run_log {
        Some(path) => BoxMakeWriter::new(console.and(open(path)?)),
        None => BoxMakeWriter::new(console),
    };
    tracing::subscriber::set_global_default(subscriber(filter, timer, lines)?)
        .map_err(|source| TelemetryError::AlreadyInitialized { source })
}

/// The wall-clock time of this machine's time zone, to the second.
#[must_use]
pub fn local_time() -> ChronoLocal {
    ChronoLocal::new("%Y-%m-%d %H:%M:%S".to_owned())
}

/// The log of one run for a program that draws its console itself: the lines look like those of
/// [`init_tracing`], which need not have been called.
#[derive(Debug)]
pub struct RunLog {
    lines: Dispatch,
}

impl RunLog {
    /// Opens the file at its end and creates it where it is missing.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn append(path: &Path) -> Result<Self, TelemetryError> {
        let lines = subscriber("info", local_time(), BoxMakeWriter::new(open(path)?))?;
        Ok(Self { lines: Dispatch::new(lines) })
    }

    /// Writes one line at once. A full disk does not end a run for its log's sake: the line is then
    /// missing and tracing says so on standard error.
    pub fn line(&self, text: &str) {
        with_default(&self.lines, || tracing::info!("{text}"));
    }
}

fn open(path: &Path) -> Result<File, TelemetryError> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).open(path).map_err(TelemetryError::io("open", path))
}

fn subscriber<T>(
    filter: &str,
    timer: T,
    lines: BoxMakeWriter,
) -> Result<impl Subscriber + Send + Sync + 'static, TelemetryError>
where
    T: FormatTime + Send + Sync + 'static,
{
    let directives = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    Ok(tracing_subscriber::fmt()
        .with_env_filter(directives)
        .with_timer(timer)
        .with_writer(lines)
        .with_ansi(false)
        .with_target(false)
        .finish())
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::fmt::format::Writer;

    use super::*;

    struct Noon;

    impl FormatTime for Noon {
        fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
            writer.write_str("2026-11-24 12:00:00")
        }
    }

    /// What `events` leave in a log behind `filter`.
    fn logged<T: FormatTime + Send + Sync + 'static>(
        filter: &str,
        timer: T,
        events: impl FnOnce(),
    ) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.log");
        let file = BoxMakeWriter::new(File::create(&path).unwrap());
        with_default(&Dispatch::new(subscriber(filter, timer, file).unwrap()), events);
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_line_is_time_level_message_and_fields() {
        let text = logged("info", Noon, || {
            tracing::info!(step = 64, "queue filling");
            tracing::warn!("K is larger than N");
            tracing::debug!("below the filter");
        });
        assert_eq!(
            text,
            "2026-11-24 12:00:00  INFO queue filling step=64\n\
             2026-11-24 12:00:00  WARN K is larger than N\n"
        );
    }

    #[test]
    fn escape_bytes_never_get_through() {
        let hostile = "a\u{1b}[31mred\u{9b}0m";
        let text = logged("info", Noon, || tracing::info!(name = hostile, "{hostile}"));
        assert!(text.contains("red"), "{text:?}");
        let is_escape = |c: char| c.is_control() && c != '\n';
        assert!(!text.contains(is_escape), "{text:?}");
    }

    #[test]
    fn the_local_time_has_date_and_seconds_but_no_zone() {
        let text = logged("info", local_time(), || tracing::info!("now"));
        let shape: String =
            text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00 00:00:00  INFO now\n");
    }

    #[test]
    fn a_filter_can_name_a_crate_and_a_bad_one_is_refused() {
        let events = || {
            tracing::debug!(target: "moco_ingest", "wanted");
            tracing::debug!(target: "moco_train", "not wanted");
        };
        let text = logged("info,moco_ingest=debug", Noon, events);
        assert_eq!(text, "2026-11-24 12:00:00 DEBUG wanted\n");
        let refused = subscriber("moco=loud", Noon, BoxMakeWriter::new(std::io::sink)).map(|_| ());
        assert_eq!(
            refused.unwrap_err().to_string(),
            "bad log filter `moco=loud`: error parsing level filter: expected one of \"off\", \
             \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5 (try `info` or \
             `info,moco_ingest=debug`)"
        );
    }

    #[test]
    fn a_run_log_goes_on_where_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.log");
        for text in ["step 1", "step 2"] {
            RunLog::append(&path).unwrap().line(text);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().filter_map(|line| line.get(19..)).collect();
        assert_eq!(lines, ["  INFO step 1", "  INFO step 2"]);
        let error = RunLog::append(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot open {}: ", folder.path().display())));
    }
}
