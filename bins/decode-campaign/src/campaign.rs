//! Runs a campaign: files in packs, Pillow's outcome of each, and the counts.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::corpus::{Origin, Sample, sample};
use crate::verdict::{Class, Outcome, class, ours, parts_agree};

/// The script that asks Pillow.
const JUDGE: &str = include_str!("../golden/judge.py");
/// Files of a pack.
const PACK: u64 = 1000;

/// Which files.
#[derive(Debug, Args)]
pub(crate) struct Files {
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of the first.
    #[arg(long, default_value_t = 0)]
    first: u64,
    #[arg(long = "files", default_value_t = 20_000)]
    n: u64,
}

/// Writes files into one.
pub(crate) fn pack(files: &Files, path: &Path) -> anyhow::Result<()> {
    let file = fs::File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let mut file = BufWriter::new(file);
    for number in files.first..files.first + files.n {
        write_packed(&mut file, &sample(files.seed, number).bytes)?;
    }
    file.flush().with_context(|| format!("writing {}", path.display()))
}

fn write_packed(to: &mut impl Write, bytes: &[u8]) -> anyhow::Result<()> {
    let length = u32::try_from(bytes.len()).context("a file of 4 GB")?;
    to.write_all(&length.to_le_bytes()).and_then(|()| to.write_all(bytes)).context("writing a pack")
}

/// Decodes files here and with Pillow, prints the counts, and fails if outcomes differ in a way that is not
/// allowed.
pub(crate) fn run(files: &Files, python: &Path, keep: Option<&Path>) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("a folder for packs")?;
    let judge = folder.path().join("judge.py");
    fs::write(&judge, JUDGE).with_context(|| format!("writing {}", judge.display()))?;
    let mut counts = Counts::default();
    let mut out = io::stdout().lock();
    let end = files.first + files.n;
    for first in (files.first..end).step_by(usize::try_from(PACK)?) {
        let part = Files { seed: files.seed, first, n: PACK.min(end - first) };
        let path = folder.path().join("pack");
        pack(&part, &path)?;
        let outcomes = pillow(python, &judge, &path)?;
        for (number, pillow) in (first..).zip(&outcomes) {
            let sample = sample(part.seed, number);
            let line = counts.add(number, &sample, pillow);
            if let Some(line) = line {
                writeln!(out, "{line}").context("writing to stdout")?;
                if let Some(keep) = keep {
                    fs::write(keep.join(number.to_string()), &sample.bytes)
                        .with_context(|| format!("writing to {}", keep.display()))?;
                }
            }
        }
        if outcomes.len() as u64 != part.n {
            bail!("Pillow's script has {} outcomes of {} files", outcomes.len(), part.n);
        }
    }
    counts.print(&mut out).context("writing to stdout")?;
    match counts.n_wrong {
        0 => Ok(()),
        n => bail!("{n} of {} files differ in a way that is not allowed", files.n),
    }
}

/// Pillow's outcomes of a pack.
fn pillow(python: &Path, judge: &Path, pack: &Path) -> anyhow::Result<Vec<Outcome>> {
    let output = Command::new(python).arg(judge).arg(pack).output();
    let output = output.with_context(|| format!("cannot start {}", python.display()))?;
    if !output.status.success() {
        bail!("Pillow's script: {}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let lines = String::from_utf8(output.stdout).context("reading Pillow's outcomes")?;
    Ok(lines.lines().map(outcome).collect())
}

fn outcome(line: &str) -> Outcome {
    match line.strip_prefix("refused ") {
        Some(reason) => Outcome::Refused(reason.into()),
        None => Outcome::Pixels(line.into()),
    }
}

#[derive(Default)]
struct Counts {
    by_class: BTreeMap<(Class, Origin), u64>,
    /// Reasons for which only the program refuses.
    by_reason: BTreeMap<String, u64>,
    /// Reasons for which both refuse files without damage.
    of_sound: BTreeMap<String, u64>,
    n_wrong: u64,
}

impl Counts {
    /// Counts a file; a line if it is wrong.
    fn add(&mut self, number: u64, sample: &Sample, pillow: &Outcome) -> Option<String> {
        let ours = ours(&sample.bytes);
        let class = class(sample, &ours, pillow);
        *self.by_class.entry((class, sample.origin)).or_default() += 1;
        if let Outcome::Refused(reason) = &ours {
            let is_damaged = matches!(sample.origin, Origin::DamagedJpeg | Origin::DamagedPng);
            match class {
                Class::Listed => *self.by_reason.entry(reason.clone()).or_default() += 1,
                _ if is_damaged => {}
                _ => *self.of_sound.entry(reason.clone()).or_default() += 1,
            }
        }
        let problem = if class.is_allowed() {
            (!parts_agree(&sample.bytes)).then_some("a part is not a part of the whole")
        } else {
            Some(class.name())
        };
        self.n_wrong += u64::from(problem.is_some());
        let name = sample.origin.name();
        problem.map(|problem| {
            format!("{number} ({name}): {problem}; here {ours:?}, Pillow {pillow:?}")
        })
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let origins = Origin::ALL;
        write!(out, "{:<22}", "")?;
        origins.iter().try_for_each(|origin| write!(out, "{:>15}", origin.name()))?;
        writeln!(out, "{:>9}", "all")?;
        for class in Class::ALL {
            let counts =
                origins.map(|origin| self.by_class.get(&(class, origin)).copied().unwrap_or(0));
            write!(out, "{:<22}", class.name())?;
            counts.iter().try_for_each(|count| write!(out, "{count:>15}"))?;
            writeln!(out, "{:>9}", counts.iter().sum::<u64>())?;
        }
        writeln!(out, "\nrefused here and not by Pillow, by rule:")?;
        for (reason, count) in &self.by_reason {
            writeln!(out, "{count:>7}  {reason}")?;
        }
        writeln!(out, "\nrefused by both without damage, by rule:")?;
        self.of_sound.iter().try_for_each(|(reason, count)| writeln!(out, "{count:>7}  {reason}"))
    }
}
