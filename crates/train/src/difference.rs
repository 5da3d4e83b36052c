//! What a run and its checkpoint do not agree on, and how a resume accepts it.

use std::fmt;

/// A value on which a run and its checkpoint do not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its name: a key of the config, the run id or a part of the data.
    pub key: String,
    /// The run's.
    pub of_run: String,
    /// The checkpoint's.
    pub of_checkpoint: String,
    /// What makes a resume accept it.
    pub acceptance: Acceptance,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, of_run, of_checkpoint, .. } = self;
        write!(f, "{key}: {of_run} in the run, {of_checkpoint} in the checkpoint")
    }
}

/// The ways to accept a difference; each is a flag of `pretrain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Acceptance {
    /// The checkpoint is another run's, and its state is taken over.
    ForeignCheckpoint,
    /// The checkpoint's config replaces the file.
    RestoreConfig,
    /// The images are others.
    ChangedData,
}

impl Acceptance {
    /// The flag, and what follows from it.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Self::ForeignCheckpoint => {
                "--accept-foreign-checkpoint continues from the state of the other run's checkpoint"
            }
            Self::RestoreConfig => {
                "--restore-config writes config.toml again with the checkpoint's values; for other \
                 values, --set KEY=VALUE changes what a resume may change, --extend STEPS the length, \
                 and --fork RUN --set KEY=VALUE makes another run"
            }
            Self::ChangedData => {
                "--accept-changed-data continues on the images that are there now; data.root may \
                 move by --set data.root=FOLDER"
            }
        }
    }
}

/// The differences and the ways out, a line each.
pub(crate) fn listed(differences: &[Difference]) -> String {
    let mut ways: Vec<Acceptance> = differences.iter().map(|one| one.acceptance).collect();
    ways.sort_unstable();
    ways.dedup();
    let lines = differences.iter().map(|one| format!("\n  {one}"));
    let help = ways.iter().map(|way| format!("\n  help: {}", way.help()));
    lines.chain(help).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_a_line_and_each_way_out_another() {
        let difference = |key: &str, acceptance| Difference {
            key: key.to_owned(),
            of_run: "1".to_owned(),
            of_checkpoint: "2".to_owned(),
            acceptance,
        };
        let differences = [
            difference("run.seed", Acceptance::RestoreConfig),
            difference("moco.dim", Acceptance::RestoreConfig),
            difference("run id", Acceptance::ForeignCheckpoint),
        ];
        let expected = format!(
            "\n  run.seed: 1 in the run, 2 in the checkpoint\
             \n  moco.dim: 1 in the run, 2 in the checkpoint\
             \n  run id: 1 in the run, 2 in the checkpoint\
             \n  help: {}\n  help: {}",
            Acceptance::ForeignCheckpoint.help(),
            Acceptance::RestoreConfig.help(),
        );
        assert_eq!(listed(&differences), expected);
    }
}
