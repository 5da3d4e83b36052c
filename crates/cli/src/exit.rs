//! Exit codes, and errors as a person should see them.

use std::process::ExitCode;

use moco_config::ConfigError;
use moco_train::ErrorKind;

/// How a program ends; the table is in `docs/cli.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed while running.
    Failed = 1,
    /// Wrong arguments or config.
    Usage = 2,
    /// Bad data or a missing device.
    DataOrMachine = 3,
    /// Stopped by a health rule.
    Health = 4,
    /// Stopped on request; a checkpoint to resume from was saved.
    Saved = 75,
}

/// An error that the user can correct, with a hint how.
#[derive(Debug)]
struct UserError {
    exit: Exit,
    message: String,
}

impl std::fmt::Display for UserError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for UserError {}

/// An error about arguments or the machine, with this exit code.
#[must_use]
pub fn usage(exit: Exit, message: impl Into<String>) -> anyhow::Error {
    UserError { exit, message: message.into() }.into()
}

/// Turns a program's result into its exit code; an error is logged and printed on standard error, each cause
/// on a line of its own.
pub(crate) fn exit_code(result: anyhow::Result<Exit>) -> ExitCode {
    let exit = match result {
        Ok(exit) => exit,
        Err(error) => {
            let (exit, text) = describe(&error);
            text.lines().for_each(|line| tracing::error!("{line}"));
            #[expect(clippy::print_stderr, reason = "this is where errors are printed")]
            {
                eprintln!("{text}");
            }
            exit
        }
    };
    ExitCode::from(exit as u8)
}

fn describe(error: &anyhow::Error) -> (Exit, String) {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<ConfigError>() {
            return (Exit::Usage, error.render());
        }
    }
    let exit = error.chain().find_map(|cause| {
        let exit = cause.downcast_ref::<UserError>().map(|error| error.exit);
        exit.or_else(|| ErrorKind::of(cause).map(of_kind))
    });
    let mut text = format!("error: {error}");
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Transparent errors repeat the text of their source.
        if !last.contains(&cause) {
            text.push_str(&format!("\n  cause: {cause}"));
        }
        last = cause;
    }
    (exit.unwrap_or(Exit::Failed), text)
}

fn of_kind(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::Failed => Exit::Failed,
        ErrorKind::DataOrMachine => Exit::DataOrMachine,
        ErrorKind::Health => Exit::Health,
        ErrorKind::Usage => Exit::Usage,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use moco_feed::FeedError;
    use moco_train::TrainError;

    use super::*;

    #[test]
    fn causes_come_on_lines_of_their_own_and_once() {
        let io = std::io::Error::other("disk on fire");
        let error = anyhow::Error::new(io).context("cannot save");
        assert_eq!(
            describe(&error),
            (Exit::Failed, "error: cannot save\n  cause: disk on fire".into())
        );
        let error = anyhow::anyhow!("cannot save: disk on fire");
        assert_eq!(describe(&error).1, "error: cannot save: disk on fire");
    }

    #[test]
    fn the_exit_code_is_found_below_a_context() {
        let run: anyhow::Result<()> =
            Err(TrainError::NoRun { path: "runs/x".into(), known: String::new() }.into());
        let (exit, text) = describe(&run.context("cannot resume").unwrap_err());
        assert_eq!(exit, Exit::Usage);
        assert!(text.contains("cause: no run at runs/x; runs there are: none"), "{text}");
        assert_eq!(describe(&usage(Exit::DataOrMachine, "no GPU")).0, Exit::DataOrMachine);
        // Programs that only draw images meet the errors of the data path themselves.
        let of_feed = |limit| FeedError::Window { window_shards: 3, n_shards: 4, limit };
        let bare = anyhow::Error::new(of_feed(2)).context("cannot preview");
        let wrapped = anyhow::Error::new(TrainError::from(of_feed(2)));
        assert_eq!([bare, wrapped].map(|error| describe(&error).0), [Exit::Usage; 2]);
    }
}
