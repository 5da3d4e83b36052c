//! The chunks of a PNG file, with the rules that Pillow 12.3.0 has for them (`PngImagePlugin.py`).
//!
//! Pillow accepts more than the format allows: it takes chunks in any order, skips critical ones that it does
//! not know, and checks checksums only before the picture's data. Where a rule here is stricter, a comment says so.

/// What the header says of a pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Color {
    Gray,
    Rgb,
    Palette,
    GrayAlpha,
    Rgba,
}

impl Color {
    /// Samples of a pixel.
    pub(crate) fn n_samples(self) -> usize {
        match self {
            Self::Gray | Self::Palette => 1,
            Self::GrayAlpha => 2,
            Self::Rgb => 3,
            Self::Rgba => 4,
        }
    }
}

/// Bits of a sample and color.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) color: Color,
    pub(crate) depth: usize,
}

/// A picture whose data is still compressed.
#[derive(Debug)]
pub(crate) struct PngFile<'a> {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) mode: Mode,
    pub(crate) is_interlaced: bool,
    /// Red, green and blue of each color.
    pub(crate) palette: &'a [u8],
    /// The pieces of its compressed data.
    pub(crate) data: Vec<&'a [u8]>,
}

/// Why a file is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PngFault {
    /// It ends before its last chunk does.
    Truncated,
    /// The reason.
    Damaged(&'static str),
}

/// Bytes of the signature.
const SIGNATURE: usize = 8;
/// The most colors.
const MAX_COLORS: usize = 256;

/// Reads all chunks of a file that begins with the signature.
pub(crate) fn read(file: &[u8]) -> Result<PngFile<'_>, PngFault> {
    let mut chunks = Chunks { file, at: SIGNATURE };
    let mut state = State::default();
    let first = loop {
        let chunk = chunks.next()?;
        match &chunk.name {
            // Without a header before it, Pillow takes the data for an unknown chunk.
            b"IDAT" if state.mode.is_some() => break chunk,
            b"IEND" => return Err(PngFault::Damaged("it ends before its picture's data")),
            b"fdAT" => return Err(PngFault::Damaged("a later frame comes before the first")),
            _ => state.take(&chunk)?,
        }
        if !chunk.has_right_checksum() {
            return Err(PngFault::Damaged("a chunk before the data has a wrong checksum"));
        }
    };
    let is_animated = state.is_animated()?;
    let mut data = vec![first.body];
    let mut ends_checks = false;
    let mut is_data = true;
    loop {
        let chunk = chunks.next()?;
        is_data &= &chunk.name == b"IDAT";
        match &chunk.name {
            b"IEND" => break,
            b"IDAT" if is_data => data.push(chunk.body),
            // Data that other chunks part from the first, which Pillow does not read.
            b"IDAT" => {}
            // Too late for Pillow.
            b"PLTE" => {}
            b"fcTL" if is_animated => ends_checks = true,
            _ if ends_checks => {}
            _ => state.take(&chunk)?,
        }
    }
    state.finish(data)
}

/// The chunks from one on.
struct Chunks<'a> {
    file: &'a [u8],
    at: usize,
}

struct Chunk<'a> {
    name: [u8; 4],
    body: &'a [u8],
    checksum: u32,
}

impl<'a> Chunks<'a> {
    fn next(&mut self) -> Result<Chunk<'a>, PngFault> {
        let rest = self.file.get(self.at..).ok_or(PngFault::Truncated)?;
        let (head, rest) = rest.split_first_chunk::<8>().ok_or(PngFault::Truncated)?;
        let [l0, l1, l2, l3, name @ ..] = *head;
        if !name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
            return Err(PngFault::Damaged("the name of a chunk is not of letters"));
        }
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        let (body, rest) = rest.split_at_checked(length).ok_or(PngFault::Truncated)?;
        let checksum = rest.first_chunk::<4>().ok_or(PngFault::Truncated)?;
        self.at += 12 + length;
        Ok(Chunk { name, body, checksum: u32::from_be_bytes(*checksum) })
    }
}

impl Chunk<'_> {
    fn has_right_checksum(&self) -> bool {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.name);
        hasher.update(self.body);
        hasher.finalize() == self.checksum
    }
}

/// What the chunks said so far.
#[derive(Default)]
struct State<'a> {
    width: u32,
    height: u32,
    mode: Option<Mode>,
    is_interlaced: bool,
    palette: Option<&'a [u8]>,
    /// Whether a palette has a single transparent color, if a chunk says so.
    has_transparent_color: bool,
    /// Frames of an animation.
    n_frames: Option<u32>,
    /// The number of the last frame's control.
    sequence: Option<u32>,
    /// Sides of the last frame's control.
    frame: Option<(u32, u32)>,
}

impl<'a> State<'a> {
    /// Takes up what a chunk says, and refuses those that Pillow cannot read.
    fn take(&mut self, chunk: &Chunk<'a>) -> Result<(), PngFault> {
        let body = chunk.body;
        let at_least = |n: usize| {
            let short = PngFault::Damaged("a chunk is shorter than what it holds");
            if body.len() < n { Err(short) } else { Ok(()) }
        };
        match &chunk.name {
            b"IHDR" => {
                at_least(13)?;
                self.header(body)?;
            }
            b"PLTE" if self.color() == Some(Color::Palette) => self.palette = Some(body),
            b"tRNS" => match self.color() {
                Some(Color::Palette) => self.has_transparent_color = is_one_color(body),
                Some(Color::Gray) => at_least(2)?,
                Some(Color::Rgb) if self.mode.is_some_and(|mode| mode.depth >= 8) => at_least(6)?,
                _ => {}
            },
            b"gAMA" => at_least(4)?,
            b"cHRM" if !body.len().is_multiple_of(4) => {
                return Err(PngFault::Damaged("a chunk of chromaticities has no whole numbers"));
            }
            b"sRGB" => at_least(1)?,
            b"pHYs" => at_least(9)?,
            b"iCCP" => {
                is_compressed(body.iter().position(|byte| *byte == 0).map_or(0, |i| i + 1), body)?
            }
            b"zTXt" => {
                let end = body.iter().position(|byte| *byte == 0);
                // A text that is not there is not compressed.
                if let Some(end) = end.filter(|end| end + 1 < body.len()) {
                    is_compressed(end + 1, body)?;
                }
            }
            b"acTL" => {
                at_least(8)?;
                let n = u32_at(body, 0);
                // A second one makes the file a still picture, and so does a number that is no number.
                let is_valid = self.n_frames.is_none() && n > 0 && n <= 1 << 31;
                let is_second = self.n_frames.is_some();
                if is_valid {
                    self.n_frames = Some(n);
                } else if is_second {
                    self.n_frames = None;
                }
            }
            b"fcTL" => {
                at_least(26)?;
                self.frame_control(body)?;
            }
            b"fdAT" => {
                at_least(4)?;
                self.count(u32_at(body, 0))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn color(&self) -> Option<Color> {
        self.mode.map(|mode| mode.color)
    }

    fn header(&mut self, body: &[u8]) -> Result<(), PngFault> {
        (self.width, self.height) = (u32_at(body, 0), u32_at(body, 4));
        let (depth, color) = (body[8], body[9]);
        let color = match (color, depth) {
            (0, 1 | 2 | 4 | 8 | 16) => Some(Color::Gray),
            (2, 8 | 16) => Some(Color::Rgb),
            (3, 1 | 2 | 4 | 8) => Some(Color::Palette),
            (4, 8 | 16) => Some(Color::GrayAlpha),
            (6, 8 | 16) => Some(Color::Rgba),
            _ => None,
        };
        // An unknown one leaves that of a header before.
        self.mode = color.map(|color| Mode { color, depth: usize::from(depth) }).or(self.mode);
        if body[11] != 0 {
            return Err(PngFault::Damaged("its header names an unknown method of filters"));
        }
        self.is_interlaced |= body[12] != 0;
        Ok(())
    }

    fn count(&mut self, number: u32) -> Result<(), PngFault> {
        if number != self.sequence.map_or(0, |last| last.wrapping_add(1)) {
            return Err(PngFault::Damaged("the frames of an animation are not in order"));
        }
        self.sequence = Some(number);
        Ok(())
    }

    fn frame_control(&mut self, body: &[u8]) -> Result<(), PngFault> {
        self.count(u32_at(body, 0))?;
        let [width, height, x, y] = [4, 8, 12, 16].map(|at| u64::from(u32_at(body, at)));
        if x + width > u64::from(self.width) || y + height > u64::from(self.height) {
            return Err(PngFault::Damaged("a frame of an animation reaches past the picture"));
        }
        self.frame = Some((u32_at(body, 4), u32_at(body, 8)));
        Ok(())
    }

    /// Whether other frames follow the picture.
    fn is_animated(&self) -> Result<bool, PngFault> {
        // Pillow would decode a part of the picture.
        if self.frame.is_some_and(|sides| sides != (self.width, self.height)) {
            let reason = "the first frame of an animation does not cover the picture";
            return Err(PngFault::Damaged(reason));
        }
        let is_not_a_frame = self.n_frames.is_some() && self.frame.is_none();
        Ok(u64::from(self.n_frames.unwrap_or(1)) + u64::from(is_not_a_frame) > 1)
    }

    fn finish(self, data: Vec<&'a [u8]>) -> Result<PngFile<'a>, PngFault> {
        let Some(mode) = self.mode else {
            return Err(PngFault::Damaged("its data comes before its header"));
        };
        if self.width == 0 || self.height == 0 {
            return Err(PngFault::Damaged("its header has a side of 0"));
        }
        let palette = self.palette.unwrap_or_default();
        if palette.len() / 3 > MAX_COLORS {
            return Err(PngFault::Damaged("its palette has more than 256 colors"));
        }
        if mode.color == Color::Palette && self.palette.is_none() && self.has_transparent_color {
            return Err(PngFault::Damaged("a color is transparent of a palette that is not there"));
        }
        Ok(PngFile {
            width: self.width,
            height: self.height,
            mode,
            is_interlaced: self.is_interlaced,
            palette,
            data,
        })
    }
}

/// Four bytes of a chunk that is known to be long enough.
fn u32_at(body: &[u8], at: usize) -> u32 {
    body[at..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// Whether exactly one color is transparent and the others are opaque, in Pillow's reading.
fn is_one_color(alphas: &[u8]) -> bool {
    let alphas = alphas.strip_suffix(b"\n").unwrap_or(alphas);
    let mut others = alphas.iter().filter(|alpha| **alpha != 255);
    others.next() == Some(&0) && others.next().is_none()
}

/// Whether the byte that names a method of compression names the only one.
fn is_compressed(at: usize, body: &[u8]) -> Result<(), PngFault> {
    match body.get(at) {
        Some(0) => Ok(()),
        _ => Err(PngFault::Damaged("a chunk names an unknown method of compression")),
    }
}
