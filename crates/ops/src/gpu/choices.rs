//! Which algorithm each convolution was found to be computed fastest by, as text that a checkpoint keeps: a
//! line that says who chose, then a line a convolution.

use std::collections::BTreeMap;

use super::convolution::{Convolution, Direction};
use crate::Conv2dSpec;
use crate::conv::Geometry;
use crate::device::OutdatedChoices;
use crate::device::choices::BITS_VARY;

/// Begins the first line. Older texts without it are taken unchanged: their algorithms have no
/// words, so another interface finds none of them among its own.
const CHOSEN_BY: &str = "chosen by ";

/// A convolution as the key of a table: its data type by name, since types have no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConvolutionKey {
    pub(super) direction: Direction,
    pub(super) geometry: Geometry,
    pub(super) dtype: &'static str,
}

impl From<&Convolution> for ConvolutionKey {
    fn from(convolution: &Convolution) -> Self {
        let Convolution { direction, geometry, dtype } = *convolution;
        Self { direction, geometry, dtype: dtype.as_str() }
    }
}

/// A convolution for people and files.
pub(super) fn name(convolution: &ConvolutionKey) -> String {
    let ConvolutionKey { direction, geometry, dtype } = convolution;
    let Geometry { n, c, h, w, co, k, spec, .. } = geometry;
    let Conv2dSpec { stride, padding, dilation, groups } = spec;
    format!(
        "{direction:?} {n}x{c}x{h}x{w} to {co} by {k} stride {stride} padding {padding} \
         dilation {dilation} groups {groups} {dtype}"
    )
}

/// The first line.
pub(super) fn header(chooser: &str) -> String {
    format!("{CHOSEN_BY}{chooser}\n")
}

/// A convolution's line; the note is empty or [`BITS_VARY`].
pub(super) fn line(convolution: &str, algorithm: &str, note: &str) -> String {
    format!("{convolution}: {algorithm}{note}\n")
}

/// The choices read from a text.
pub(super) enum Saved {
    /// The algorithm of each convolution.
    Choices(BTreeMap<String, String>),
    /// Another library or device chose, whose algorithms mean something else here.
    Outdated(OutdatedChoices),
}

/// Reads a text of choices for a library.
pub(super) fn read(text: &str, chooser: &str) -> Result<Saved, String> {
    let mut lines = text.lines().peekable();
    if let Some(chosen_by) = lines.next_if(|line| line.starts_with(CHOSEN_BY)) {
        let chosen_by = chosen_by.trim_start_matches(CHOSEN_BY);
        if chosen_by != chooser {
            let (chosen_by, here) = (chosen_by.to_owned(), chooser.to_owned());
            return Ok(Saved::Outdated(OutdatedChoices { chosen_by, here }));
        }
    }
    let choice = |line: &str| {
        let (convolution, algorithm) = line.trim_end_matches(BITS_VARY).rsplit_once(": ")?;
        Some((convolution.to_owned(), algorithm.to_owned()))
    };
    let choices = lines
        .map(|line| choice(line).ok_or_else(|| format!("`{line}` is no choice of an algorithm")));
    Ok(Saved::Choices(choices.collect::<Result<_, _>>()?))
}
