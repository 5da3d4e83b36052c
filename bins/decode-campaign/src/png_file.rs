//! PNG files that walk through the options of the standard: types, depths, interlacing, filters, chunks.

use miniz_oxide::deflate::compress_to_vec_zlib;

use crate::dice::Dice;

/// The signature of every file.
pub(crate) const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// What the header says.
#[derive(Debug, Clone, Copy)]
struct Header {
    width: usize,
    height: usize,
    depth: usize,
    color: u8,
    is_interlaced: bool,
}

impl Header {
    fn n_samples(self) -> usize {
        match self.color {
            2 => 3,
            4 => 2,
            6 => 4,
            _ => 1,
        }
    }

    fn row_bytes(self, width: usize) -> usize {
        (width * self.n_samples() * self.depth).div_ceil(8)
    }
}

/// Appends a chunk with its checksum.
pub(crate) fn chunk(file: &mut Vec<u8>, name: [u8; 4], body: &[u8]) {
    file.extend(u32::try_from(body.len()).unwrap_or_default().to_be_bytes());
    let checksum = checksum(name, body);
    file.extend(name);
    file.extend(body);
    file.extend(checksum.to_be_bytes());
}

/// The checksum of a chunk.
pub(crate) fn checksum(name: [u8; 4], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&name);
    hasher.update(body);
    hasher.finalize()
}

/// A file.
pub(crate) fn draw(dice: &mut Dice) -> Vec<u8> {
    let header = header(dice);
    let mut chunks = Chunks { file: SIGNATURE.to_vec(), wrong: wrong(dice) };
    if dice.percent(3) {
        ancillary(dice, &mut chunks, header);
    }
    let sides = |n: usize| u32::try_from(n).unwrap_or_default().to_be_bytes();
    let flags = [0, 0, u8::from(header.is_interlaced)];
    let depth = u8::try_from(header.depth).unwrap_or_default();
    let mut ihdr = [sides(header.width), sides(header.height)].concat();
    ihdr.extend([depth, header.color]);
    ihdr.extend(flags);
    chunks.put(*b"IHDR", &ihdr);
    before_data(dice, &mut chunks, header);
    let animation = dice.percent(6).then(|| dice.percent(50));
    let mut sequence = 0;
    if let Some(begins) = animation {
        let n_frames = [0, 0, 0, if begins { 2 } else { 1 }];
        chunks.put(*b"acTL", &[&n_frames[..], &[0; 4]].concat());
        if begins {
            frame_control(&mut chunks, header, &mut sequence);
        }
    }
    let data = rows(dice, header);
    let data = compress(dice, &data);
    pieces(dice, &mut chunks, &data);
    if animation.is_some() {
        frame_control(&mut chunks, header, &mut sequence);
        let data = rows(dice, header);
        let data = compress(dice, &data);
        chunks.put(*b"fdAT", &[&[0, 0, 0, sequence][..], &data].concat());
    }
    if dice.percent(15) {
        ancillary(dice, &mut chunks, header);
    }
    chunks.put(*b"IEND", &[]);
    let mut file = chunks.file;
    if dice.percent(6) {
        let n = dice.below(40);
        file.extend(dice.bytes(n));
    }
    file
}

/// Chunks, of which one may have a wrong checksum.
struct Chunks {
    file: Vec<u8>,
    wrong: Option<[u8; 4]>,
}

impl Chunks {
    fn put(&mut self, name: [u8; 4], body: &[u8]) {
        chunk(&mut self.file, name, body);
        if self.wrong == Some(name) {
            self.wrong = None;
            if let Some(last) = self.file.last_mut() {
                *last ^= 0x55;
            }
        }
    }
}

/// The chunk whose checksum is wrong: of the picture or another.
fn wrong(dice: &mut Dice) -> Option<[u8; 4]> {
    let names = [*b"IHDR", *b"IDAT", *b"IDAT", *b"IEND", *b"PLTE", *b"tRNS", *b"gAMA", *b"tEXt"];
    dice.percent(8).then(|| dice.pick(&names))
}

fn header(dice: &mut Dice) -> Header {
    let (color, depth) = if dice.percent(2) {
        (dice.pick(&[0, 1, 2, 3, 4, 5, 6, 7]), dice.pick(&[1, 2, 3, 4, 8, 16, 32]))
    } else {
        dice.pick(&[
            (0, 1),
            (0, 2),
            (0, 4),
            (0, 8),
            (0, 16),
            (2, 8),
            (2, 8),
            (2, 16),
            (3, 1),
            (3, 2),
            (3, 4),
            (3, 8),
            (4, 8),
            (4, 16),
            (6, 8),
            (6, 16),
        ])
    };
    let longest = if dice.percent(2) { 300 } else { dice.pick(&[4, 9, 20, 50]) };
    Header {
        width: 1 + dice.below(longest),
        height: 1 + dice.below(longest),
        depth,
        color,
        is_interlaced: dice.percent(35),
    }
}

/// Palette, transparency and others, in an order.
fn before_data(dice: &mut Dice, chunks: &mut Chunks, header: Header) {
    let mut work = Vec::new();
    if header.color == 3 && !dice.percent(2) || header.color != 3 && dice.percent(4) {
        let n = 1 << header.depth.min(8);
        // Sometimes fewer colors than the pixels use.
        let n = if dice.percent(25) { dice.below(n + 1) } else { n };
        let body = dice.bytes(3 * n);
        work.push((*b"PLTE", body));
    }
    if dice.percent(30) {
        let body = match header.color {
            0 => [0, dice.byte()].to_vec(),
            2 => dice.bytes(6),
            3 if dice.percent(50) => {
                let mut body = vec![255; 1 + dice.below(1 << header.depth.min(8))];
                let place = dice.below(body.len());
                body[place] = 0;
                body
            }
            3 => {
                let n = dice.below(257);
                dice.bytes(n)
            }
            _ => Vec::new(),
        };
        if !body.is_empty() || header.color == 3 {
            work.push((*b"tRNS", body));
        }
    }
    if dice.percent(25) {
        dice.shuffle(&mut work);
    }
    for (name, body) in work {
        if dice.percent(30) {
            ancillary(dice, chunks, header);
        }
        chunks.put(name, &body);
    }
    while dice.percent(35) {
        ancillary(dice, chunks, header);
    }
}

/// A chunk that says nothing of the pixels as they are stored.
fn ancillary(dice: &mut Dice, chunks: &mut Chunks, header: Header) {
    let (name, n) = dice.pick(&[
        (*b"gAMA", 4),
        (*b"gAMA", 4),
        (*b"cHRM", 32),
        (*b"sRGB", 1),
        (*b"sBIT", 3),
        (*b"bKGD", 2),
        (*b"hIST", 8),
        (*b"pHYs", 9),
        (*b"tIME", 7),
        (*b"sPLT", 20),
        (*b"cICP", 4),
        (*b"prVt", 11),
        (*b"eXIf", 8),
    ]);
    let body = match dice.below(5) {
        0 => {
            let text = dice.below(30);
            let text = dice.bytes(text);
            return chunks.put(*b"tEXt", &[&b"Comment\0"[..], &text].concat());
        }
        1 => {
            let text = compress(dice, b"a text that is compressed");
            let (name, head) = dice.pick(&[
                (*b"zTXt", &b"Title\0\0"[..]),
                (*b"iCCP", &b"profile\0\0"[..]),
                (*b"iTXt", &b"Title\0\x01\0en\0\0"[..]),
            ]);
            return chunks.put(name, &[head, &text].concat());
        }
        _ if &name == b"gAMA" => [0, 0, dice.pick(&[0xb1, 0x10]), 0x8f].to_vec(),
        _ if &name == b"sBIT" => vec![8; header.n_samples()],
        _ => dice.bytes(n),
    };
    chunks.put(name, &body);
}

/// The control of a frame that covers the picture.
fn frame_control(chunks: &mut Chunks, header: Header, sequence: &mut u8) {
    let sides =
        [header.width, header.height].map(|n| u32::try_from(n).unwrap_or_default().to_be_bytes());
    let mut body = vec![0, 0, 0, *sequence];
    body.extend(sides.concat());
    body.extend([0; 8]);
    body.extend([0, 1, 0, 10, 0, 0]);
    chunks.put(*b"fcTL", &body);
    *sequence += 1;
}

/// The rows of all passes, filtered.
fn rows(dice: &mut Dice, header: Header) -> Vec<u8> {
    let passes: &[[usize; 4]] = if header.is_interlaced {
        &[
            [0, 0, 8, 8],
            [4, 0, 8, 8],
            [0, 4, 4, 8],
            [2, 0, 4, 4],
            [0, 2, 2, 4],
            [1, 0, 2, 2],
            [0, 1, 1, 2],
        ]
    } else {
        &[[0, 0, 1, 1]]
    };
    let mut rows = Vec::new();
    let noise = dice.percent(30);
    let filter = dice.percent(50).then(|| u8::try_from(dice.below(5)).unwrap_or_default());
    for [left, top, across, down] in passes {
        let n = |side: usize, first: usize, step: usize| side.saturating_sub(first).div_ceil(step);
        let (width, height) = (n(header.width, *left, *across), n(header.height, *top, *down));
        if width == 0 {
            continue;
        }
        for _ in 0..height {
            rows.push(filter.unwrap_or_else(|| u8::try_from(dice.below(5)).unwrap_or_default()));
            let n_bytes = header.row_bytes(width);
            if noise {
                rows.extend(dice.bytes(n_bytes));
            } else {
                let base = dice.byte();
                rows.extend((0..n_bytes).map(|i| base.wrapping_add(i.to_le_bytes()[0] / 3)));
            }
        }
    }
    rows
}

fn compress(dice: &mut Dice, data: &[u8]) -> Vec<u8> {
    if dice.percent(10) {
        return stored(dice, data);
    }
    // Not through flate2, whose backend, and with it the bytes, depends on the features of a build.
    compress_to_vec_zlib(data, dice.pick(&[0, 1, 6, 9]))
}

/// Blocks that are not compressed, of any size.
fn stored(dice: &mut Dice, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let mut rest = data;
    loop {
        let n = dice.below(rest.len().min(65_535) + 1);
        let is_last = rest.len() == n;
        let length = u16::try_from(n).unwrap_or_default();
        out.push(u8::from(is_last));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(&rest[..n]);
        rest = &rest[n..];
        if is_last {
            break;
        }
    }
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in data {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    out.extend((b << 16 | a).to_be_bytes());
    out
}

/// The data in one or more chunks, some of them empty.
fn pieces(dice: &mut Dice, chunks: &mut Chunks, data: &[u8]) {
    let mut rest = data;
    while dice.percent(30) && !rest.is_empty() {
        let (piece, others) = rest.split_at(dice.below(rest.len()));
        chunks.put(*b"IDAT", piece);
        rest = others;
    }
    chunks.put(*b"IDAT", rest);
}
