//! The log of a process: the events of tracing as lines of text, on the console and in a run's `run.log`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter};
use tracing_subscriber::fmt::format::{DefaultFields, Format, Full};
use tracing_subscriber::fmt::time::{ChronoLocal, FormatTime};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::error::TelemetryError;

/// A run's file among the receivers of this process's events: every event of the level `INFO` and above, and
/// what the filter of [`start_log`] adds. Until [`RunLog::open`] it keeps nothing.
#[derive(Debug, Clone, Default)]
pub struct RunLog {
    file: Arc<Mutex<Option<File>>>,
}

impl RunLog {
    /// Opens the file at its end and creates it where it is missing; from here on it gets a line for each
    /// event: time, level, spans, message and fields, without escape bytes.
    ///
    /// A full disk does not end a run for its log's sake: the line is then missing, and tracing reports it on
    /// standard error.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(&self, path: &Path) -> Result<(), TelemetryError> {
        let mut options = OpenOptions::new();
        let file = options
            .append(true)
            .create(true)
            .open(path)
            .map_err(TelemetryError::io("open", path))?;
        *self.lock() = Some(file);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<File>> {
        // A file is whole after every use, so a panic elsewhere leaves nothing half done.
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'w> MakeWriter<'w> for RunLog {
    type Writer = RunLogWriter<'w>;

    fn make_writer(&'w self) -> Self::Writer {
        RunLogWriter { file: self.lock() }
    }
}

/// The file while a line is written.
#[derive(Debug)]
pub struct RunLogWriter<'a> {
    file: MutexGuard<'a, Option<File>>,
}

impl Write for RunLogWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.as_mut().map_or(Ok(bytes.len()), |file| file.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// Receives the events of this process from here on. With a `filter`, which is the value of `RUST_LOG`, those
/// that pass it are also written to the console: time, level, spans, target, message and fields.
///
/// `console` makes a writer for each line: `std::io::stderr`, or one that first lifts a progress bar out of
/// the way.
///
/// # Errors
/// The filter does not parse, or this process has a log already.
pub fn start_log<C>(filter: Option<&str>, console: C) -> Result<RunLog, TelemetryError>
where
    C: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let run_log = RunLog::default();
    let receivers = subscriber(filter, local_time(), console, run_log.clone())?;
    tracing::subscriber::set_global_default(receivers)
        .map_err(|source| TelemetryError::AlreadyInitialized { source })?;
    Ok(run_log)
}

/// The wall-clock time of this machine's time zone, to the second.
fn local_time() -> ChronoLocal {
    ChronoLocal::new("%Y-%m-%d %H:%M:%S".to_owned())
}

fn subscriber<C, T>(
    filter: Option<&str>,
    timer: T,
    console: C,
    run_log: RunLog,
) -> Result<impl Subscriber + Send + Sync + 'static, TelemetryError>
where
    C: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    T: FormatTime + Clone + Send + Sync + 'static,
{
    let added = match filter {
        Some(filter) => directives(filter)?,
        None => directives("off")?,
    };
    let of_run = lines(timer.clone(), run_log).with_target(false);
    let of_run = of_run.with_filter(LevelFilter::INFO.or(added));
    let console = match filter {
        Some(filter) => Some(lines(timer, console).with_filter(directives(filter)?)),
        None => None,
    };
    Ok(Registry::default().with(of_run).with(console))
}

fn directives(filter: &str) -> Result<EnvFilter, TelemetryError> {
    let parsed = EnvFilter::builder().parse(filter);
    parsed.map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })
}

/// A layer that writes each event as a line of plain text.
fn lines<S, W, T>(timer: T, writer: W) -> PlainLines<S, W, T>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fmt::layer().with_timer(timer).with_writer(writer).with_ansi(false)
}

type PlainLines<S, W, T> = fmt::Layer<S, DefaultFields, Format<Full, T>, W>;

#[cfg(test)]
mod tests {
    use tracing::Dispatch;
    use tracing::dispatcher::with_default;
    use tracing_subscriber::fmt::format::Writer;

    use super::*;

    #[derive(Clone)]
    struct Noon;

    impl FormatTime for Noon {
        fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
            writer.write_str("2026-11-24 12:00:00")
        }
    }

    /// What `events` leave on the console and in the run's log, in this order.
    fn logged<T: FormatTime + Clone + Send + Sync + 'static>(
        filter: Option<&str>,
        timer: T,
        events: impl FnOnce(),
    ) -> [String; 2] {
        let folder = tempfile::tempdir().unwrap();
        let [console, run_log] = ["console", "run.log"].map(|name| folder.path().join(name));
        let file = Mutex::new(File::create(&console).unwrap());
        let log = RunLog::default();
        log.open(&run_log).unwrap();
        with_default(&Dispatch::new(subscriber(filter, timer, file, log).unwrap()), events);
        [console, run_log].map(|path| std::fs::read_to_string(path).unwrap())
    }

    fn events() {
        let _stage = tracing::debug_span!("stage", name = "decode-0").entered();
        tracing::info!(target: "moco_train", step = 64, "queue filling");
        tracing::warn!(target: "moco_train", "K is larger than N");
        tracing::debug!(target: "moco_ingest", "wanted");
        tracing::debug!(target: "moco_train", "below the filter");
    }

    #[test]
    fn without_a_filter_the_run_log_has_what_informs_and_the_console_nothing() {
        let [console, run_log] = logged(None, Noon, events);
        assert_eq!(console, "");
        assert_eq!(
            run_log,
            "2026-11-24 12:00:00  INFO queue filling step=64\n\
             2026-11-24 12:00:00  WARN K is larger than N\n"
        );
    }

    #[test]
    fn a_filter_chooses_for_the_console_and_only_adds_to_the_run_log() {
        let [console, run_log] = logged(Some("warn,moco_ingest=debug"), Noon, events);
        assert_eq!(
            console,
            "2026-11-24 12:00:00  WARN moco_train: K is larger than N\n\
             2026-11-24 12:00:00 DEBUG moco_ingest: wanted\n"
        );
        assert_eq!(
            run_log,
            "2026-11-24 12:00:00  INFO queue filling step=64\n\
             2026-11-24 12:00:00  WARN K is larger than N\n\
             2026-11-24 12:00:00 DEBUG wanted\n"
        );
        // The span is one of this crate.
        let [console, _] = logged(Some("moco_telemetry=debug,moco_ingest=debug"), Noon, events);
        assert_eq!(
            console,
            "2026-11-24 12:00:00 DEBUG stage{name=\"decode-0\"}: moco_ingest: wanted\n"
        );
    }

    #[test]
    fn escape_bytes_never_get_through() {
        let hostile = "a\u{1b}[31mred\u{9b}0m";
        let texts = logged(Some("info"), Noon, || tracing::info!(name = hostile, "{hostile}"));
        for text in texts {
            assert!(text.contains("red"), "{text:?}");
            let is_escape = |c: char| c.is_control() && c != '\n';
            assert!(!text.contains(is_escape), "{text:?}");
        }
    }

    #[test]
    fn the_local_time_has_date_and_seconds_but_no_zone() {
        let [_, text] = logged(None, local_time(), || tracing::info!("now"));
        let shape: String =
            text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00 00:00:00  INFO now\n");
    }

    #[test]
    fn a_bad_filter_is_refused() {
        let refused = subscriber(Some("moco=loud"), Noon, std::io::sink, RunLog::default());
        assert_eq!(
            refused.map(|_| ()).unwrap_err().to_string(),
            "bad log filter `moco=loud`: error parsing level filter: expected one of \"off\", \
             \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5 (try `info` or \
             `info,moco_ingest=debug`)"
        );
    }

    #[test]
    fn a_folder_is_no_run_log() {
        let folder = tempfile::tempdir().unwrap();
        let error = RunLog::default().open(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot open {}: ", folder.path().display())));
    }
}
