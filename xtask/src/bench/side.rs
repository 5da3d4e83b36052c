//! A process that reads commands line by line and answers with numbers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, bail};

/// One side of a comparison.
#[derive(Debug)]
pub(crate) struct Side {
    name: &'static str,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Side {
    /// Starts it with this many threads.
    pub(crate) fn start(
        name: &'static str,
        mut command: Command,
        threads: usize,
    ) -> anyhow::Result<Self> {
        for variable in ["RAYON_NUM_THREADS", "OMP_NUM_THREADS"] {
            command.env(variable, threads.to_string());
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let input = child.stdin.take().context("no pipe to it")?;
        let output = BufReader::new(child.stdout.take().context("no pipe from it")?);
        Ok(Self { name, child, input, output })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    fn ask<T: std::str::FromStr>(&mut self, line: &str) -> anyhow::Result<T> {
        let asked = writeln!(self.input, "{line}").and_then(|()| self.input.flush());
        asked.with_context(|| format!("{} is gone", self.name))?;
        let mut answer = String::new();
        self.output.read_line(&mut answer).with_context(|| format!("{} is gone", self.name))?;
        match answer.trim().parse() {
            Ok(number) => Ok(number),
            Err(_) => bail!("{} answers {:?} to {line:?}", self.name, answer.trim()),
        }
    }

    /// Seconds that a case takes once. It runs twice: the first run brings back what the other sides
    /// pushed out of the caches.
    pub(crate) fn seconds(&mut self, case: &str) -> anyhow::Result<f64> {
        self.ask::<f64>(case)?;
        self.ask(case)
    }

    /// The most memory it ever had, in bytes.
    pub(crate) fn peak_bytes(&mut self) -> anyhow::Result<u64> {
        self.ask("memory")
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // A side that has ended already is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
