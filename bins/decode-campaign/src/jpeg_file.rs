//! JPEG files that walk through the options of T.81: processes, sampling, tables, names, markers and scans.

use crate::dice::Dice;
use crate::jpeg_code::{self, N_PLACES, Table, Token};
use crate::jpeg_extras::{self, segment};
use crate::jpeg_options::{
    ARITHMETIC, BASELINE, Codes, Component, LOSSLESS, Options, PROGRESSIVE, Range, options,
};
use crate::jpeg_scan::{self, Part, Plane, Scan};

/// A file.
pub(crate) fn draw(dice: &mut Dice) -> Vec<u8> {
    loop {
        let options = options(dice);
        if let Some(file) = file(dice, &options) {
            return file;
        }
    }
}

/// The bytes, unless the drawn tables cannot say what is drawn.
fn file(dice: &mut Dice, options: &Options) -> Option<Vec<u8>> {
    let picture = picture(dice, options);
    let mut file = vec![0xff, 0xd8];
    jpeg_extras::applications(dice, &mut file, options.components.len());
    let quantization = quantization(dice, options);
    let before_frame = dice.percent(70);
    if before_frame {
        file.extend(&quantization);
    }
    jpeg_extras::maybe_comment(dice, &mut file);
    let frame = frame_header(dice, options);
    segment(dice, &mut file, options.process, &frame);
    if !before_frame {
        file.extend(&quantization);
    }
    if ARITHMETIC.contains(&options.process) {
        arithmetic(dice, &mut file, options);
        return Some(file);
    }
    write_scans(dice, &mut file, options, &picture)?;
    jpeg_extras::fill(dice, &mut file);
    file.extend([0xff, 0xd9]);
    if dice.percent(8) {
        let n = dice.below(40);
        file.extend(dice.bytes(n));
    }
    Some(file)
}

/// What is coded, and in which scans.
struct Picture {
    planes: Vec<Plane>,
    /// Units in a row, and rows of them.
    n_units: (usize, usize),
    scans: Vec<Scan>,
}

fn picture(dice: &mut Dice, options: &Options) -> Picture {
    let most = |get: fn(&Component) -> usize| options.components.iter().map(get).max().unwrap_or(1);
    let (h, v) = (most(|c| c.h), most(|c| c.v));
    let is_lossless = options.process == LOSSLESS;
    let unit = if is_lossless { 1 } else { 8 };
    let n_units = (options.width.div_ceil(unit * h), options.height.div_ceil(unit * v));
    let planes = options.components.iter().map(|c| {
        let own =
            |side: usize, factor: usize, most: usize| (side * factor).div_ceil(most).div_ceil(unit);
        let own = (own(options.width, c.h, h), own(options.height, c.v, v));
        let across = n_units.0 * c.h;
        let n_blocks = if is_lossless { 0 } else { across * n_units.1 * c.v };
        let blocks = blocks(dice, options.range, n_blocks);
        Plane { h: c.h, v: c.v, across, own, blocks }
    });
    let planes: Vec<Plane> = planes.collect();
    let mut scans = scans(dice, options);
    if is_lossless {
        // Restarts are at the ends of rows.
        for scan in scans.iter_mut().filter(|scan| scan.restart_interval > 0) {
            let single = scan.parts.len() == 1;
            let across = if single { planes[scan.parts[0].plane].own.0 } else { n_units.0 };
            scan.restart_interval = across * (1 + scan.restart_interval % 3);
        }
    }
    Picture { planes, n_units, scans }
}

/// Appends the scans, each after the tables that it needs.
fn write_scans(
    dice: &mut Dice,
    file: &mut Vec<u8>,
    options: &Options,
    picture: &Picture,
) -> Option<()> {
    let mut interval = 0;
    for (i, scan) in picture.scans.iter().enumerate() {
        if scan.restart_interval != interval {
            interval = scan.restart_interval;
            let bytes = u16::try_from(interval).unwrap_or_default().to_be_bytes();
            segment(dice, file, 0xdd, &bytes);
        }
        let tokens = if options.process == LOSSLESS {
            jpeg_scan::lossless_tokens(dice, scan, &picture.planes, picture.n_units)
        } else {
            jpeg_scan::tokens(scan, &picture.planes, picture.n_units)
        };
        let tables = tables(dice, options, &tokens);
        if options.codes != Codes::LeftOut {
            write_tables(dice, file, &tables);
        }
        if i > 0 {
            jpeg_extras::maybe_comment(dice, file);
        }
        segment(dice, file, 0xda, &scan_header(options, scan));
        file.extend(jpeg_code::write(&tokens, &tables, options.padding)?);
        if i == 0 && dice.percent(4) {
            let height = u16::try_from(options.height).unwrap_or_default().to_be_bytes();
            segment(dice, file, 0xdc, &height);
        }
    }
    Some(())
}

/// A scan of arithmetic coding; what its data says does not matter, as nothing is decoded.
fn arithmetic(dice: &mut Dice, file: &mut Vec<u8>, options: &Options) {
    segment(dice, file, 0xcc, &[0x00, 0x10, 0x10, 0x05]);
    let parts = (0..options.components.len()).map(|plane| Part { plane, dc: 0, ac: 0 });
    let last = if options.process == ARITHMETIC[1] { 0 } else { 63 };
    let scan = Scan {
        parts: parts.collect(),
        band: (0, last),
        high: 0,
        low: 0,
        is_progressive: options.process == ARITHMETIC[1],
        restart_interval: 0,
        joins_ends: false,
    };
    segment(dice, file, 0xda, &scan_header(options, &scan));
    let n = 20 + dice.below(200);
    file.extend(dice.bytes(n).into_iter().filter(|byte| *byte != 0xff));
    file.extend([0xff, 0xd9]);
}

/// Coefficients of some blocks; they get rarer and smaller toward the end of a block.
fn blocks(dice: &mut Dice, range: Range, n: usize) -> Vec<[i32; 64]> {
    let (constant, other) = if range == Range::All { (16_383, 16_383) } else { (900, 100) };
    let n_others = dice.pick(&[0, 1, 3, 6, 12, 40]);
    let mut last = 0;
    (0..n)
        .map(|_| {
            let mut block = [0; 64];
            if dice.percent(80) {
                last =
                    (last + dice.between(-constant / 8, constant / 8)).clamp(-constant, constant);
            }
            block[0] = last;
            for _ in 0..dice.below(n_others + 1) {
                let place = dice.below(64).min(dice.below(64)).min(dice.below(64)).max(1);
                let most = if range == Range::All {
                    other
                } else {
                    1 + other / i32::try_from(place).unwrap_or(1)
                };
                block[place] = dice.between(-most, most);
            }
            // Runs of more than 16 zeros, also up to the last coefficient.
            if n_others > 0 && dice.percent(5) {
                block[63] = dice.between(-1, 1);
            }
            block
        })
        .collect()
}

/// The scans of a file, in their order.
fn scans(dice: &mut Dice, options: &Options) -> Vec<Scan> {
    let mut scans = if options.process == PROGRESSIVE {
        progression(dice, options)
    } else {
        let groups = groups(dice, options, 25);
        let (band, low) = match options.process {
            LOSSLESS => ((1 + dice.below(7), 0), dice.pick(&[0, 0, 1, 7])),
            _ => ((0, 63), 0),
        };
        let scans = groups.into_iter().map(|planes| scan(dice, options, &planes, band));
        scans.map(|scan| Scan { low, ..scan }).collect()
    };
    // Scans that end early; the first stays.
    if options.process == PROGRESSIVE && dice.percent(40) {
        scans.truncate(1 + dice.below(scans.len()));
    }
    let restarts = dice.percent(30);
    for scan in &mut scans {
        scan.restart_interval = if restarts && dice.percent(85) { 1 + dice.below(12) } else { 0 };
    }
    scans
}

/// The components of each scan that has them all at once, as far as the format allows, or one by one.
fn groups(dice: &mut Dice, options: &Options, percent_single: usize) -> Vec<Vec<usize>> {
    let n = options.components.len();
    let n_blocks = |planes: &[usize]| -> usize {
        planes.iter().map(|i| options.components[*i].h * options.components[*i].v).sum()
    };
    let all: Vec<usize> = (0..n).collect();
    let has_equal_names =
        n > 1 && options.components.iter().all(|c| c.id == options.components[0].id);
    if n_blocks(&all) <= 10 && (has_equal_names || !dice.percent(percent_single)) {
        return vec![all];
    }
    if n > 2 && n_blocks(&all[1..]) <= 10 && dice.percent(40) {
        return vec![vec![0], all[1..].to_vec()];
    }
    let mut single: Vec<Vec<usize>> = all.into_iter().map(|i| vec![i]).collect();
    if dice.percent(30) {
        dice.shuffle(&mut single);
    }
    single
}

fn scan(dice: &mut Dice, options: &Options, planes: &[usize], band: (usize, usize)) -> Scan {
    let n_places = match options.process {
        _ if options.codes != Codes::Drawn => 2,
        BASELINE => 2,
        _ => N_PLACES,
    };
    let parts = planes.iter().map(|plane| Part {
        plane: *plane,
        dc: dice.below(n_places),
        ac: dice.below(n_places),
    });
    let parts = parts.collect();
    let is_progressive = options.process == PROGRESSIVE;
    let joins_ends = dice.percent(85);
    Scan { parts, band, high: 0, low: 0, is_progressive, restart_interval: 0, joins_ends }
}

/// The scans of a progressive picture: bands of coefficients, each with its bits from high to low.
fn progression(dice: &mut Dice, options: &Options) -> Vec<Scan> {
    let mut sequences: Vec<Vec<Scan>> = Vec::new();
    let mut first = Vec::new();
    for planes in groups(dice, options, 15) {
        let low = dice.pick(&[0, 0, 1, 2]);
        let whole = scan(dice, options, &planes, (0, 0));
        let mut refined = refinements(dice, &whole, low);
        first.push(refined.remove(0));
        sequences.push(refined);
    }
    for plane in 0..options.components.len() {
        let mut start = 1;
        while start < 64 {
            let n = dice.pick(&[1, 2, 5, 9, 20, 63]);
            let end = (start + dice.below(n)).min(63);
            let end = if dice.percent(30) { 63 } else { end };
            let low = dice.pick(&[0, 0, 0, 1, 1, 2, 3]);
            let whole = scan(dice, options, &[plane], (start, end));
            sequences.push(refinements(dice, &whole, low));
            start = end + 1;
        }
    }
    // Any order between the bands is allowed.
    let mut order: Vec<usize> =
        sequences.iter().enumerate().flat_map(|(i, scans)| vec![i; scans.len()]).collect();
    if dice.percent(70) {
        dice.shuffle(&mut order);
    }
    let mut sequences: Vec<_> = sequences.into_iter().map(Vec::into_iter).collect();
    first.extend(order.into_iter().filter_map(|i| sequences[i].next()));
    first
}

/// A scan of all but the `low` lowest bits, and those that bring one more each.
fn refinements(dice: &mut Dice, scan: &Scan, low: u32) -> Vec<Scan> {
    let first = Scan { low, ..scan.clone() };
    let mut scans = vec![first];
    for low in (0..low).rev() {
        let joins_ends = dice.percent(85);
        scans.push(Scan { high: low + 1, low, joins_ends, ..scan.clone() });
    }
    scans
}

fn tables(dice: &mut Dice, options: &Options, tokens: &[Token]) -> Vec<Option<Table>> {
    let table = |place: usize, dice: &mut Dice| {
        let is_used = tokens
            .iter()
            .any(|token| matches!(token, Token::Code { table, .. } if *table == place));
        is_used.then(|| match options.codes {
            Codes::Drawn => Table::drawn(dice, tokens, place),
            Codes::Standard | Codes::LeftOut => Table::standard(place),
        })
    };
    let mut tables: Vec<Option<Table>> =
        (0..2 * N_PLACES).map(|place| table(place, dice)).collect();
    // A sequential scan needs both of its tables, used or not.
    if tokens.iter().any(|token| matches!(token, Token::Code { table, .. } if *table < N_PLACES)) {
        let spare =
            Table { counts: [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], bytes: vec![0] };
        if options.process != PROGRESSIVE && options.codes == Codes::Drawn {
            tables.iter_mut().for_each(|table| {
                table.get_or_insert_with(|| spare.clone());
            });
            let n_places = if options.process == BASELINE { 2 } else { N_PLACES };
            for class in tables.chunks_mut(N_PLACES) {
                class[n_places..].fill(None);
            }
        }
    }
    tables
}

fn write_tables(dice: &mut Dice, file: &mut Vec<u8>, tables: &[Option<Table>]) {
    let together = dice.percent(50);
    let mut body = Vec::new();
    for (place, table) in tables.iter().enumerate() {
        let Some(table) = table else { continue };
        body.extend(table.segment(place));
        if !together {
            segment(dice, file, 0xc4, &body);
            body.clear();
        }
    }
    if !body.is_empty() {
        segment(dice, file, 0xc4, &body);
    }
}

fn quantization(dice: &mut Dice, options: &Options) -> Vec<u8> {
    let mut segments = Vec::new();
    let mut body = Vec::new();
    let together = dice.percent(50);
    for place in 0..4_u8 {
        let most = match options.range {
            Range::All => dice.pick(&[1, 255, 65_535]),
            Range::Picture => dice.pick(&[1, 4, 16, 60, 255]),
        };
        let is_wide = most > 255 || options.process != BASELINE && dice.percent(15);
        body.push(u8::from(is_wide) << 4 | place);
        for _ in 0..64 {
            let value = u16::try_from(dice.between(1, most)).unwrap_or(1).to_be_bytes();
            body.extend(&value[usize::from(!is_wide)..]);
        }
        if !together {
            segment(dice, &mut segments, 0xdb, &body);
            body.clear();
        }
    }
    if !body.is_empty() {
        segment(dice, &mut segments, 0xdb, &body);
    }
    segments
}

fn frame_header(dice: &mut Dice, options: &Options) -> Vec<u8> {
    let side = |n: usize| u16::try_from(n).unwrap_or_default().to_be_bytes();
    // A height of 0 is one that follows the first scan, which libjpeg does not read.
    let height = if dice.percent(1) { 0 } else { options.height };
    let n = u8::try_from(options.components.len()).unwrap_or_default();
    let mut body = vec![options.precision];
    body.extend(side(height));
    body.extend(side(options.width));
    body.push(n);
    for Component { id, h, v, table } in &options.components {
        let [factors, table] = [h << 4 | v, *table].map(|n| u8::try_from(n).unwrap_or_default());
        body.extend([*id, factors, table]);
    }
    body
}

fn scan_header(options: &Options, scan: &Scan) -> Vec<u8> {
    let byte = |n: usize| u8::try_from(n).unwrap_or_default();
    let mut body = vec![byte(scan.parts.len())];
    for Part { plane, dc, ac } in &scan.parts {
        body.extend([options.components[*plane].id, byte(dc << 4 | ac)]);
    }
    body.extend([byte(scan.band.0), byte(scan.band.1), byte((scan.high << 4 | scan.low) as usize)]);
    body
}
