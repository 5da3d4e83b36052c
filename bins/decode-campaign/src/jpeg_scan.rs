//! The tokens of JPEG scans: sequential, and the four kinds of progressive ones (T.81, annexes F and G).

use crate::dice::Dice;
use crate::jpeg_code::{N_PLACES, Token};

/// The coefficients of a component.
#[derive(Debug, Clone)]
pub(crate) struct Plane {
    /// Sampling factors.
    pub(crate) h: usize,
    pub(crate) v: usize,
    /// Blocks in a row and rows of them, whole units.
    pub(crate) across: usize,
    /// The same that a scan of only this component has.
    pub(crate) own: (usize, usize),
    /// In zigzag order.
    pub(crate) blocks: Vec<[i32; 64]>,
}

/// A component of a scan, and the numbers of its tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) plane: usize,
    pub(crate) dc: usize,
    pub(crate) ac: usize,
}

/// What a scan holds.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    pub(crate) parts: Vec<Part>,
    /// First and last coefficient.
    pub(crate) band: (usize, usize),
    pub(crate) high: u32,
    pub(crate) low: u32,
    pub(crate) is_progressive: bool,
    /// Units between restarts, or 0.
    pub(crate) restart_interval: usize,
    /// Whether ends of several blocks are coded as one.
    pub(crate) joins_ends: bool,
}

/// The tokens of a scan of a picture of `n_units` units in a row and rows of them.
pub(crate) fn tokens(scan: &Scan, planes: &[Plane], n_units: (usize, usize)) -> Vec<Token> {
    let single = scan.parts.len() == 1;
    let units = if single { planes[scan.parts[0].plane].own } else { n_units };
    let mut state =
        State { tokens: Vec::new(), last: [0; 4], ac: 0, n_ended: 0, corrections: Vec::new() };
    for unit in 0..units.0 * units.1 {
        if unit > 0 && scan.restart_interval > 0 && unit % scan.restart_interval == 0 {
            state.end_blocks();
            state.tokens.push(Token::Restart);
            state.last = [0; 4];
        }
        let (ux, uy) = (unit % units.0, unit / units.0);
        for (i, part) in scan.parts.iter().enumerate() {
            let plane = &planes[part.plane];
            state.ac = part.ac;
            let (h, v) = if single { (1, 1) } else { (plane.h, plane.v) };
            for y in 0..v {
                for x in 0..h {
                    let block = &plane.blocks[(uy * v + y) * plane.across + ux * h + x];
                    state.block(scan, i, block);
                }
            }
        }
    }
    state.end_blocks();
    state.tokens
}

/// The tokens of a lossless scan, of any differences.
pub(crate) fn lossless_tokens(
    dice: &mut Dice,
    scan: &Scan,
    planes: &[Plane],
    n_units: (usize, usize),
) -> Vec<Token> {
    let single = scan.parts.len() == 1;
    let units = if single { planes[scan.parts[0].plane].own } else { n_units };
    let most = dice.pick(&[1, 6, 40, 32_767]);
    let mut tokens = Vec::new();
    for unit in 0..units.0 * units.1 {
        if unit > 0 && scan.restart_interval > 0 && unit % scan.restart_interval == 0 {
            tokens.push(Token::Restart);
        }
        for part in &scan.parts {
            let plane = &planes[part.plane];
            for _ in 0..if single { 1 } else { plane.h * plane.v } {
                // A difference of 32,768 has no bits of its own.
                let is_widest = most > 255 && dice.percent(2);
                let (n, value) =
                    if is_widest { (16, 0) } else { number(dice.between(-most, most)) };
                tokens.push(Token::Code { table: part.dc, byte: n });
                tokens.push(Token::Bits { n: if is_widest { 0 } else { n.into() }, value });
            }
        }
    }
    tokens
}

struct State {
    tokens: Vec<Token>,
    /// The constant coefficients before, by part.
    last: [i32; 4],
    /// The table of the other coefficients.
    ac: usize,
    /// Blocks that ended without a token so far.
    n_ended: u32,
    /// Their bits of correction.
    corrections: Vec<u32>,
}

impl State {
    fn block(&mut self, scan: &Scan, part: usize, block: &[i32; 64]) {
        if !scan.is_progressive {
            self.constant(scan, part, block[0]);
            self.first(scan, block, (1, 63));
            return;
        }
        match (scan.band.0, scan.high) {
            (0, 0) => self.constant(scan, part, block[0] >> scan.low),
            (0, _) => {
                let value = (block[0] >> scan.low & 1).unsigned_abs();
                self.tokens.push(Token::Bits { n: 1, value });
            }
            (_, 0) => self.first(scan, block, scan.band),
            (_, _) => self.refine(scan, block),
        }
    }

    fn constant(&mut self, scan: &Scan, part: usize, value: i32) {
        let (n, bits) = number(value - self.last[part]);
        self.last[part] = value;
        let table = scan.parts[part].dc;
        self.tokens.push(Token::Code { table, byte: n });
        self.tokens.push(Token::Bits { n: u32::from(n), value: bits });
    }

    fn code(&mut self, byte: u8) {
        self.tokens.push(Token::Code { table: N_PLACES + self.ac, byte });
    }

    /// The first bits of a band of coefficients.
    fn first(&mut self, scan: &Scan, block: &[i32; 64], band: (usize, usize)) {
        let low = if scan.is_progressive { scan.low } else { 0 };
        let mut run = 0;
        for value in &block[band.0..=band.1] {
            let value = value.signum() * (value.abs() >> low);
            if value == 0 {
                run += 1;
                continue;
            }
            self.end_blocks();
            while run > 15 {
                self.code(0xf0);
                run -= 16;
            }
            let (n, bits) = number(value);
            self.code(run << 4 | n);
            self.tokens.push(Token::Bits { n: u32::from(n), value: bits });
            run = 0;
        }
        if run > 0 {
            self.n_ended += 1;
            if !scan.is_progressive || !scan.joins_ends || self.n_ended == MAX_ENDED {
                self.end_blocks();
            }
        }
    }

    /// One more bit of a band of coefficients.
    fn refine(&mut self, scan: &Scan, block: &[i32; 64]) {
        let sizes = block.map(|value| value.unsigned_abs() >> scan.low);
        let band = scan.band.0..=scan.band.1;
        let last_new = band.clone().rfind(|k| sizes[*k] == 1).unwrap_or_default();
        let (mut run, mut corrections) = (0, Vec::new());
        for k in band {
            let size = sizes[k];
            if size == 0 {
                run += 1;
                continue;
            }
            while run > 15 && k <= last_new {
                self.end_blocks();
                self.code(0xf0);
                self.correct(&mut corrections);
                run -= 16;
            }
            if size > 1 {
                corrections.push(size & 1);
                continue;
            }
            self.end_blocks();
            self.code(run << 4 | 1);
            self.tokens.push(Token::Bits { n: 1, value: u32::from(block[k] > 0) });
            self.correct(&mut corrections);
            run = 0;
        }
        if run > 0 || !corrections.is_empty() {
            self.n_ended += 1;
            self.corrections.append(&mut corrections);
            if !scan.joins_ends || self.n_ended == MAX_ENDED {
                self.end_blocks();
            }
        }
    }

    fn correct(&mut self, corrections: &mut Vec<u32>) {
        self.tokens.extend(corrections.drain(..).map(|value| Token::Bits { n: 1, value }));
    }

    /// The token for the blocks that ended.
    fn end_blocks(&mut self) {
        if self.n_ended == 0 {
            return;
        }
        let n = self.n_ended.ilog2();
        self.code(u8::try_from(n << 4).unwrap_or_default());
        self.tokens.push(Token::Bits { n, value: self.n_ended - (1 << n) });
        self.n_ended = 0;
        let mut corrections = std::mem::take(&mut self.corrections);
        self.correct(&mut corrections);
    }
}

/// The most blocks that one token ends.
const MAX_ENDED: u32 = 0x7fff;

/// The length of a number, and its bits (T.81, F.1.2.1).
fn number(value: i32) -> (u8, u32) {
    let n = 32 - value.unsigned_abs().leading_zeros();
    let bits = if value < 0 { value - 1 } else { value }.cast_unsigned();
    (u8::try_from(n).unwrap_or_default(), bits & ((1 << n) - 1))
}
