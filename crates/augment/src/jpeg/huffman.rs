//! Huffman codes and the bits of an entropy-coded segment.

use super::Fault;

/// Bits that one look into a table resolves: code and, if they fit, the bits of the coefficient behind it.
const LOOK_BITS: u32 = 10;
/// Longest code.
const MAX_BITS: usize = 16;
/// What [`Symbol::run`] is for an end of block: any position plus this is past the block.
pub(super) const END_OF_BLOCK: usize = 64;

/// A code, its coefficient included where one look resolves both.
#[derive(Debug, Clone, Copy, Default)]
struct Symbol {
    /// Bits to drop; 0 marks a code longer than [`LOOK_BITS`].
    n_bits: u8,
    /// Zeros before the coefficient, or [`END_OF_BLOCK`].
    run: u8,
    /// Bits of the coefficient that still have to be read.
    size: u8,
    /// The byte that the code stands for: run in the upper half, size in the lower.
    byte: u8,
    /// The coefficient if `size` is 0.
    value: i16,
}

/// What the codes of a table are read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Runs and coefficients, which follow their codes.
    Coefficients,
    /// Their bytes alone.
    Bytes,
}

/// A decoding table.
#[derive(Debug, Clone)]
pub(super) struct Huffman {
    look: Box<[Symbol; 1 << LOOK_BITS]>,
    /// By length: the first code past those of this length, left-aligned to 16 bits.
    ends: [u32; MAX_BITS + 1],
    /// By length: what to add to a code to get its place in `bytes`, wrapping.
    offsets: [u32; MAX_BITS + 1],
    bytes: Vec<u8>,
}

impl Huffman {
    /// Builds the table from the number of codes of each length and their bytes (T.81, annex C).
    pub(super) fn new(counts: &[u8; MAX_BITS], bytes: &[u8], usage: Use) -> Result<Self, Fault> {
        let (mut ends, mut offsets) = ([0; MAX_BITS + 1], [0; MAX_BITS + 1]);
        let mut look = Box::new([Symbol::default(); 1 << LOOK_BITS]);
        let (mut code, mut place) = (0_u32, 0_u32);
        for length in 1..=MAX_BITS {
            offsets[length] = place.wrapping_sub(code);
            for _ in 0..counts[length - 1] {
                let byte = bytes.get(place as usize);
                let byte = *byte.ok_or(Fault::Damaged("a table of codes is shorter than it says"))?;
                if code >= 1 << length {
                    return Err(Fault::Damaged("a table has more codes than their lengths allow"));
                }
                if length <= LOOK_BITS as usize {
                    fill(&mut look[..], (code, length as u32), byte, usage);
                }
                (code, place) = (code + 1, place + 1);
            }
            ends[length] = code << (MAX_BITS - length);
            code <<= 1;
        }
        Ok(Self { look, ends, offsets, bytes: bytes.to_vec() })
    }

    /// A code of more than [`LOOK_BITS`] bits, or none.
    #[cold]
    #[inline(never)]
    fn long(&self, window: u64) -> Option<Symbol> {
        let top = (window >> 48) as u32;
        let length = (LOOK_BITS as usize + 1..=MAX_BITS).find(|n| top < self.ends[*n])?;
        let place = (top >> (MAX_BITS - length)).wrapping_add(self.offsets[length]);
        self.bytes.get(place as usize).map(|byte| symbol(*byte, length as u32))
    }
}

fn symbol(byte: u8, n_bits: u32) -> Symbol {
    let run = if byte == 0 { END_OF_BLOCK as u8 } else { byte >> 4 };
    Symbol { n_bits: n_bits as u8, run, size: byte & 15, byte, value: 0 }
}

/// Writes the entries of `look` that begin with a code.
fn fill(look: &mut [Symbol], (code, length): (u32, u32), byte: u8, usage: Use) {
    let plain = symbol(byte, length);
    let size = u32::from(plain.size);
    let rest = LOOK_BITS - length;
    let first = (code << rest) as usize;
    for (below, entry) in (0_u32..).zip(&mut look[first..first + (1 << rest)]) {
        *entry = plain;
        if usage == Use::Coefficients && size > 0 && size <= rest {
            let value = extend(below >> (rest - size), size) as i16;
            *entry = Symbol { n_bits: (length + size) as u8, size: 0, value, ..plain };
        }
    }
}

/// T.81, EXTEND: values whose first bit is 0 are negative.
#[inline(always)]
fn extend(bits: u32, size: u32) -> i32 {
    let bits = bits as i32;
    if bits < 1 << (size - 1) { bits - (1 << size) + 1 } else { bits }
}

/// Reads bits of one entropy-coded segment, stuffing already removed.
#[derive(Debug)]
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, first at the top; below the `n_bits` counted ones may follow more of the data.
    window: u64,
    n_bits: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, window: 0, n_bits: 0 }
    }

    /// Whether more bits were read than there are, or a code was unknown.
    pub(super) fn is_overrun(&self) -> bool {
        8 * self.at > 8 * self.data.len() + self.n_bits as usize
    }

    /// Makes at least 56 bits count; past the end they are 0.
    #[inline(always)]
    fn refill(&mut self) {
        if let Some(bytes) = self.data.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            self.window |= u64::from_be_bytes(*bytes) >> self.n_bits;
            self.at += ((63 - self.n_bits) >> 3) as usize;
            self.n_bits |= 56;
        } else {
            self.refill_at_end();
        }
    }

    #[cold]
    #[inline(never)]
    fn refill_at_end(&mut self) {
        while self.n_bits <= 56 {
            let byte = self.data.get(self.at).copied().unwrap_or(0);
            self.window |= u64::from(byte) << (56 - self.n_bits);
            self.at += 1;
            self.n_bits += 8;
        }
    }

    #[inline(always)]
    fn drop_bits(&mut self, n: u32) {
        self.window <<= n;
        self.n_bits -= n;
    }

    /// Up to 16 bits as a number.
    #[inline(always)]
    pub(super) fn take(&mut self, n: u32) -> u32 {
        self.refill();
        let bits = ((self.window >> 1) >> (63 - n)) as u32;
        self.drop_bits(n);
        bits
    }

    #[inline(always)]
    fn symbol(&mut self, table: &Huffman) -> Symbol {
        self.refill();
        let mut symbol = table.look[(self.window >> (64 - LOOK_BITS)) as usize];
        if symbol.n_bits == 0 {
            symbol = table.long(self.window).unwrap_or_else(|| self.unknown());
        }
        self.drop_bits(u32::from(symbol.n_bits));
        symbol
    }

    /// What an unknown code is taken for: the end of the block and of the data.
    #[cold]
    fn unknown(&mut self) -> Symbol {
        self.at += self.data.len() + 64;
        symbol(0, 1)
    }

    #[inline(always)]
    fn receive(&mut self, size: u8) -> i32 {
        let bits = (self.window >> (64 - u32::from(size))) as u32;
        self.drop_bits(u32::from(size));
        extend(bits, u32::from(size))
    }

    /// A run of zeros and the coefficient after it; a run past the block ends the block.
    #[inline(always)]
    pub(super) fn run_and_value(&mut self, table: &Huffman) -> (usize, i32) {
        let Symbol { run, size, value, .. } = self.symbol(table);
        (usize::from(run), if size == 0 { i32::from(value) } else { self.receive(size) })
    }

    /// The byte of a code; the table is one of [`Use::Bytes`].
    pub(super) fn byte(&mut self, table: &Huffman) -> u8 {
        self.symbol(table).byte
    }

    /// A value of `size` bits after a code's byte.
    pub(super) fn value(&mut self, size: u8) -> i32 {
        self.refill();
        if size == 0 { 0 } else { self.receive(size) }
    }
}
