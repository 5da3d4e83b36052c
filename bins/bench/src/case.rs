//! The cases that can be measured, and the words and numbers that they are made from.

use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context as _, bail};
use candle_core::{Device, Tensor};
use moco_rng::{At, Purpose, Seed};

/// Something that can be run again and again.
pub(crate) struct Case(Box<dyn FnMut() -> anyhow::Result<()>>);

/// The words of a case that were not yet read.
pub(crate) struct Words<'a>(std::str::SplitWhitespace<'a>);

impl<'a> Words<'a> {
    /// The words of a line.
    pub(crate) fn of(line: &'a str) -> Self {
        Self(line.split_whitespace())
    }

    pub(crate) fn word(&mut self, name: &str) -> anyhow::Result<&'a str> {
        self.0.next().with_context(|| format!("{name} is missing; see `bench --help`"))
    }

    pub(crate) fn number<T: FromStr>(&mut self, name: &str) -> anyhow::Result<T> {
        let word = self.word(name)?;
        match word.parse() {
            Ok(number) => Ok(number),
            Err(_) => bail!("{name} is {word:?}, expected a number"),
        }
    }
}

impl Case {
    pub(crate) fn from(work: impl FnMut() -> anyhow::Result<()> + 'static) -> Self {
        Self(Box::new(work))
    }

    /// Runs it once; gives the seconds.
    pub(crate) fn run(&mut self) -> anyhow::Result<f64> {
        let start = Instant::now();
        (self.0)()?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// Normal numbers in f32; `index` distinguishes the tensors of a case.
pub(crate) fn normal(dims: &[usize], index: u64) -> anyhow::Result<Tensor> {
    let mut stream = Seed(0).stream(Purpose::Init, At::index(index));
    #[expect(clippy::cast_possible_truncation, reason = "random numbers need no more digits")]
    let numbers: Vec<f32> =
        (0..dims.iter().product::<usize>()).map(|_| stream.normal() as f32).collect();
    Ok(Tensor::from_vec(numbers, dims, &Device::Cpu)?)
}

/// The same for activations `[N, C, H, W]`, which are stored with channels last.
pub(crate) fn activations([n, c, h, w]: [usize; 4], index: u64) -> anyhow::Result<Tensor> {
    Ok(normal(&[n, h, w, c], index)?.permute((0, 3, 1, 2))?)
}
