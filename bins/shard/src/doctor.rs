//! `shard doctor`: what a folder of images holds, and a config that trains on it.
//!
//! The report is TOML: what is said stands in comments, and what is suggested is the config.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use moco_augment::{AugmentError, RgbImage, exif_orientation};
use moco_cli::{Console, Exit, print_result, usage};
use moco_ingest::{ImageFolder, Layout, OnBadSample, Payload, Source as _};
use moco_pipeline::{Feed, Pipeline, StageError};
use moco_telemetry::{format_bytes, format_count};

use crate::args::DoctorArgs;
use crate::suggestion::{Facts, suggestion};

/// Images that wait in each lane.
const AHEAD: usize = 4;
/// Broken files, repeated files and classes that are named.
const NAMED: usize = 50;

/// What is known of one image.
struct Looked {
    /// Path below the folder.
    name: String,
    n_bytes: u64,
    /// The start of the checksum of its bytes.
    hash: u128,
    format: &'static str,
    /// Width and height, or why it cannot be used.
    size: Result<(u32, u32), String>,
    is_turned: bool,
}

/// What is known of all images.
#[derive(Debug, Default)]
struct Report {
    n_sound: u64,
    n_bytes: u64,
    /// Images of each format, and how many of them are broken.
    formats: BTreeMap<&'static str, (u64, u64)>,
    broken: Vec<String>,
    /// Sides of the sound images, the shorter first, with the image's number.
    sides: Vec<(u32, u32, usize)>,
    names: Vec<String>,
    n_turned: u64,
    /// The first image of each content.
    seen: BTreeMap<u128, usize>,
    repeated: Vec<String>,
    n_repeated: u64,
    /// Sound images of each folder of the first level; of none are those beside them.
    classes: BTreeMap<Option<String>, u64>,
}

pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<Exit> {
    let root = &args.folder;
    let folder =
        ImageFolder::open(root, Layout::Unlabeled, OnBadSample::Skip { budget: u64::MAX })?;
    let (left_out, n_unusable) = (folder.left_out(), folder.n_unusable());
    let total = folder.len();
    let mut feed = feed(&Arc::new(folder), args.workers.into())?;
    let mut console = Console::detect();
    console.start(0, total);
    let mut report = Report::default();
    for done in 1.. {
        let Some(looked) = feed.recv()? else { break };
        report.add(looked);
        console.advance(done);
        if done.is_multiple_of(100) || done == total {
            console.status(done, "images decoded");
        }
    }
    console.finish();
    print_result(&commented(&report.describe(root, left_out.as_deref())));
    if report.n_sound == 0 {
        return Err(usage(
            Exit::DataOrMachine,
            format!("{} holds no image that can be used", root.display()),
        ));
    }
    print_result(&suggestion(root, report.facts(n_unusable))?);
    Ok(Exit::Done)
}

fn feed(folder: &Arc<ImageFolder>, workers: usize) -> anyhow::Result<Feed<Looked>> {
    let mut pipeline = Pipeline::new();
    let lanes = pipeline.source("sample", workers, AHEAD, (0..folder.len()).map(Ok))?;
    let lanes = pipeline.map("decode", lanes, AHEAD, |_| {
        let folder = Arc::clone(folder);
        move |sample_index| -> Result<Looked, StageError> { Ok(look(&folder, sample_index)?) }
    })?;
    Ok(pipeline.feed(lanes))
}

fn look(folder: &ImageFolder, sample_index: u64) -> anyhow::Result<Looked> {
    let name = folder.name(sample_index)?.to_owned();
    let unusable = |name, reason| {
        let (n_bytes, hash, is_turned) = (0, 0, false);
        Looked { name, n_bytes, hash, format: "unreadable", size: Err(reason), is_turned }
    };
    let bytes = match folder.read(sample_index) {
        Ok(read) => match read.payload {
            Payload::Encoded(bytes) => bytes,
            Payload::Rgb { .. } => return Ok(unusable(name, "it is no file".to_owned())),
        },
        Err(error) => match error.bad_sample(sample_index) {
            Some(bad) => return Ok(unusable(name, bad.reason)),
            None => return Err(error.into()),
        },
    };
    let hash = blake3::hash(&bytes);
    let hash = hash.as_bytes().first_chunk().map_or(0, |start| u128::from_le_bytes(*start));
    let decoded = RgbImage::decode(&bytes).map(|image| (image.width(), image.height()));
    Ok(Looked {
        name,
        n_bytes: bytes.len() as u64,
        hash,
        format: format_of(&bytes),
        size: decoded.map_err(|error: AugmentError| format!("{:#}", anyhow::Error::from(error))),
        is_turned: exif_orientation(&bytes).is_some(),
    })
}

fn format_of(bytes: &[u8]) -> &'static str {
    match image::guess_format(bytes) {
        Ok(image::ImageFormat::Jpeg) => "JPEG",
        Ok(image::ImageFormat::Png) => "PNG",
        Ok(image::ImageFormat::WebP) => "WebP",
        Ok(image::ImageFormat::Bmp) => "BMP",
        Ok(image::ImageFormat::Tiff) => "TIFF",
        Ok(image::ImageFormat::Gif) => "GIF",
        _ if bytes.get(4..8) == Some(b"ftyp") => "HEIC, AVIF or a video",
        _ if bytes.trim_ascii_start().starts_with(b"<") => "HTML or XML",
        _ => "no image",
    }
}

impl Report {
    fn facts(&self, n_unusable: u64) -> Facts {
        Facts {
            n_sound: self.n_sound,
            n_broken: self.broken.len() as u64,
            n_unusable,
            is_turned: self.n_turned > 0,
            is_labeled: self.classes.len() > 1 && !self.classes.contains_key(&None),
        }
    }

    fn add(&mut self, looked: Looked) {
        let Looked { name, n_bytes, hash, format, size, is_turned } = looked;
        let row = self.formats.entry(format).or_default();
        row.0 += 1;
        self.n_bytes += n_bytes;
        let (width, height) = match size {
            Ok(size) => size,
            Err(reason) => {
                row.1 += 1;
                self.broken.push(format!("{name}: {reason}"));
                return;
            }
        };
        self.n_sound += 1;
        self.n_turned += u64::from(is_turned);
        let class = name.split_once('/').map(|(class, _)| class.to_owned());
        *self.classes.entry(class).or_default() += 1;
        let number = self.names.len();
        self.sides.push((width.min(height), width.max(height), number));
        match self.seen.get(&hash) {
            Some(first) => {
                self.n_repeated += 1;
                if self.repeated.len() < NAMED {
                    self.repeated.push(format!("{name} = {}", self.names[*first]));
                }
            }
            None => drop(self.seen.insert(hash, number)),
        }
        self.names.push(name);
    }

    fn describe(&mut self, root: &Path, left_out: Option<&str>) -> String {
        let n_broken = self.broken.len() as u64;
        let mut lines = vec![format!(
            "{}: {} images, {} of them broken, {} in all",
            root.display(),
            format_count(self.n_sound + n_broken),
            format_count(n_broken),
            format_bytes(self.n_bytes)
        )];
        lines.extend([String::new(), format!("{:<22} {:>9} {:>9}", "format", "files", "broken")]);
        lines.extend(self.formats.iter().map(|(format, (n, n_broken))| {
            format!("{format:<22} {:>9} {:>9}", format_count(*n), format_count(*n_broken))
        }));
        lines.push(String::new());
        if !self.broken.is_empty() {
            lines.push("broken:".to_owned());
            lines.extend(named(&self.broken, n_broken));
        }
        if let Some(left_out) = left_out {
            lines.push(format!("left out: {left_out}"));
        }
        lines.extend(self.sizes());
        if self.n_turned > 0 {
            let n = format_count(self.n_turned);
            lines.push(format!("turned by their EXIF tag: {n} images, if data.exif = \"apply\""));
        }
        if self.n_repeated > 0 {
            let n = format_count(self.n_repeated);
            lines.push(format!("with the bytes of another: {n}"));
            lines.extend(named(&self.repeated, self.n_repeated));
        }
        let classes = self.classes.iter().map(|(class, n)| {
            format!("{} {}", class.as_deref().unwrap_or("(in no folder)"), format_count(*n))
        });
        let classes: Vec<String> = classes.collect();
        lines.push(format!("folders: {}", classes.len()));
        lines.extend(named(&classes, classes.len() as u64));
        lines.join("\n")
    }

    /// The image in the middle is that by the shorter side.
    fn sizes(&mut self) -> Option<String> {
        self.sides.sort_unstable();
        let (first, last) = (self.sides.first()?, self.sides.last()?);
        let middle = self.sides.get(self.sides.len() / 2)?;
        let size = |(short, long, number): &(u32, u32, usize)| {
            format!("{short} x {long} ({})", self.names[*number])
        };
        let [first, middle, last] = [first, middle, last].map(size);
        Some(format!("sides in pixels: smallest {first}, median {middle}, largest {last}"))
    }
}

/// The first of `all`, a line each, and how many more there are.
fn named(all: &[String], n: u64) -> Vec<String> {
    let shown = all.len().min(NAMED);
    let mut lines: Vec<String> = all[..shown].iter().map(|name| format!("  {name}")).collect();
    if n > shown as u64 {
        lines.push(format!("  and {} more", format_count(n - shown as u64)));
    }
    lines
}

/// The text as comments of TOML, which may hold no control characters.
fn commented(text: &str) -> String {
    let comment = |line: &str| {
        let plain = |c: char| {
            if c.is_control() { c.escape_default().to_string() } else { c.to_string() }
        };
        format!("# {}", line.chars().map(plain).collect::<String>()).trim_end().to_owned()
    };
    text.lines().map(comment).collect::<Vec<_>>().join("\n")
}
