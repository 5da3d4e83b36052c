//! Huffman codes and the bits of an entropy-coded segment.

use crate::JpegError;

/// Length of the longest code that one look into a table resolves.
const LOOK_BITS: u32 = 9;
/// Longest code.
const MAX_BITS: usize = 16;
/// What [`Symbol::run`] is for an end of block: any position plus this is further past the block than any
/// run of zeros leads.
pub(crate) const END_OF_BLOCK: usize = 128;
/// [`Bits::at`] from an unknown code on; no data is as long.
const UNKNOWN_CODE: usize = usize::MAX / 4;
/// [`Bits::at`] from a run on that passes the end of its block.
const LONG_RUN: usize = usize::MAX / 2;

/// What the first bits of the data mean: bytes of a word, so that one load brings all of it.
///
/// The lowest byte is the length of the code and of the coefficient after it, which the next look waits for,
/// or 0 if the code is longer than [`LOOK_BITS`]; the next the length of the code itself; the next the zeros
/// before the coefficient, or [`END_OF_BLOCK`]; the highest the byte that the code stands for.
#[derive(Debug, Clone, Copy, Default)]
struct Symbol(u32);

impl Symbol {
    fn new(byte: u8, n_bits: u32, usage: Use) -> Self {
        // Only progressive scans have runs of blocks; in others each of those codes ends its block.
        let ends_block = byte & 15 == 0 && byte != 0xf0;
        let run = if ends_block { END_OF_BLOCK as u32 } else { u32::from(byte >> 4) };
        let n_value = if usage == Use::Coefficients { u32::from(byte & 15) } else { 0 };
        Self((n_bits + n_value) | n_bits << 8 | run << 16 | u32::from(byte) << 24)
    }

    #[inline(always)]
    fn n_code(self) -> u32 {
        (self.0 >> 8) & 63
    }

    #[inline(always)]
    fn n_all(self) -> u32 {
        self.0 & 63
    }

    #[inline(always)]
    fn run(self) -> usize {
        ((self.0 >> 16) & 255) as usize
    }

    #[inline(always)]
    fn byte(self) -> u8 {
        (self.0 >> 24) as u8
    }
}

/// What the codes of a table are read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Runs and coefficients, which follow their codes.
    Coefficients,
    /// Only their bytes.
    Bytes,
    /// Only their bytes, which are lengths of lossless differences.
    Differences,
}

/// Zeros and the coefficient after them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunAndValue {
    pub(crate) run: usize,
    pub(crate) value: i32,
}

/// A decoding table.
#[derive(Debug, Clone)]
pub(crate) struct Huffman {
    look: Box<[Symbol; 1 << LOOK_BITS]>,
    /// By length: the first code past those of this length, left-aligned to 16 bits.
    ends: [u32; MAX_BITS + 1],
    /// By length: what to add to a code to get its place in `bytes`, wrapping.
    offsets: [u32; MAX_BITS + 1],
    bytes: Vec<u8>,
    usage: Use,
}

impl Huffman {
    /// Builds the table from the number of codes of each length and their bytes (T.81, annex C).
    pub(crate) fn new(
        counts: &[u8; MAX_BITS],
        bytes: &[u8],
        usage: Use,
    ) -> Result<Self, JpegError> {
        let (mut ends, mut offsets) = ([0; MAX_BITS + 1], [0; MAX_BITS + 1]);
        let mut look = Box::new([Symbol::default(); 1 << LOOK_BITS]);
        let (mut code, mut place) = (0_u32, 0_u32);
        for length in 1..=MAX_BITS {
            offsets[length] = place.wrapping_sub(code);
            for _ in 0..counts[length - 1] {
                let byte = bytes.get(place as usize);
                let byte =
                    *byte.ok_or(JpegError::Damaged("a table of codes is shorter than it says"))?;
                // The code of only ones is not allowed either.
                if code + 1 >= 1 << length {
                    return Err(JpegError::Damaged(
                        "a table has more codes than their lengths allow",
                    ));
                }
                if let Some(rest) = LOOK_BITS.checked_sub(length as u32) {
                    let first = (code << rest) as usize;
                    look[first..first + (1 << rest)].fill(Symbol::new(byte, length as u32, usage));
                }
                (code, place) = (code + 1, place + 1);
            }
            ends[length] = code << (MAX_BITS - length);
            code <<= 1;
        }
        Ok(Self { look, ends, offsets, bytes: bytes.to_vec(), usage })
    }

    /// A code of more than [`LOOK_BITS`] bits, or none.
    fn long(&self, window: u64) -> Option<Symbol> {
        let top = (window >> 48) as u32;
        let length = (LOOK_BITS as usize + 1..=MAX_BITS).find(|n| top < self.ends[*n])?;
        let place = (top >> (MAX_BITS - length)).wrapping_add(self.offsets[length]);
        let byte = self.bytes.get(place as usize)?;
        Some(Symbol::new(*byte, length as u32, self.usage))
    }
}

/// The number in the `size` bits at the top of `window`; it is negative if the first of them is 0
/// (T.81, EXTEND).
#[inline(always)]
fn extended(window: u64, size: u32) -> i32 {
    let bits = ((window >> 1) >> (63 - size)) as i32;
    let is_negative = !((window as i64) >> 63) as i32;
    bits - (is_negative & ((1 << size) - 1))
}

/// Reads bits of one entropy-coded segment, stuffing already removed.
///
/// Rare cases are functions from this to this: one that borrowed it would keep it out of the registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, first at the top; below the `n_bits` counted ones may follow more of the data.
    window: u64,
    n_bits: u32,
}

impl<'a> Bits<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, window: 0, n_bits: 0 }
    }

    /// Whether more bits were read than there are, or they made no sense.
    #[inline(always)]
    pub(crate) fn is_overrun(&self) -> bool {
        self.at > self.data.len() + (self.n_bits / 8) as usize
    }

    /// An error if more bits were read than there are, or they made no sense.
    #[inline(always)]
    pub(crate) fn check(self) -> Result<(), JpegError> {
        if self.is_overrun() { Err(self.fault()) } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    fn fault(self) -> JpegError {
        JpegError::Damaged(if self.at >= LONG_RUN {
            "a run of zeros passes the end of its block"
        } else if self.at >= UNKNOWN_CODE {
            "a code is not in its table"
        } else {
            "the coded data of a scan or restart interval ends before its last block"
        })
    }

    /// Notes that a run of zeros passes the end of its block, unless something was noted before; the rest is
    /// read as zeros.
    #[cold]
    #[inline(never)]
    pub(crate) fn with_long_run(mut self) -> Self {
        if !self.is_overrun() {
            self.at = LONG_RUN;
        }
        self
    }

    /// Makes at least 56 bits count; past the end they are 0.
    #[inline(always)]
    fn refill(&mut self) {
        if let Some(bytes) = self.data.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            self.window |= u64::from_be_bytes(*bytes) >> self.n_bits;
            self.at += ((63 - self.n_bits) >> 3) as usize;
            self.n_bits |= 56;
        } else {
            *self = self.refilled_at_end();
        }
    }

    #[cold]
    #[inline(never)]
    fn refilled_at_end(mut self) -> Self {
        while self.n_bits <= 56 {
            let byte = self.data.get(self.at).copied().unwrap_or(0);
            self.window |= u64::from(byte) << (56 - self.n_bits);
            self.at += 1;
            self.n_bits += 8;
        }
        self
    }

    #[inline(always)]
    fn drop_bits(&mut self, n: u32) {
        self.window <<= n;
        self.n_bits -= n;
    }

    /// Up to 16 bits as a number.
    #[inline(always)]
    pub(crate) fn take(&mut self, n: u32) -> u32 {
        self.refill();
        let bits = ((self.window >> 1) >> (63 - n)) as u32;
        self.drop_bits(n);
        bits
    }

    /// The symbol at the top of the window, which is not dropped yet.
    #[inline(always)]
    fn symbol(&mut self, table: &Huffman) -> Symbol {
        self.refill();
        self.symbol_of_full(table)
    }

    /// The same where enough bits count for a code of [`LOOK_BITS`] and its coefficient.
    #[inline(always)]
    fn symbol_of_full(&mut self, table: &Huffman) -> Symbol {
        let symbol = table.look[(self.window >> (64 - LOOK_BITS)) as usize];
        if symbol.0 != 0 {
            return symbol;
        }
        let symbol;
        (*self, symbol) = self.long_symbol(table);
        symbol
    }

    /// A long code; an unknown one is taken for the end of the block and of the data.
    #[cold]
    #[inline(never)]
    fn long_symbol(mut self, table: &Huffman) -> (Self, Symbol) {
        self.refill();
        let symbol = table.long(self.window).unwrap_or_else(|| {
            if !self.is_overrun() {
                self.at = UNKNOWN_CODE;
            }
            Symbol::new(0, 1, Use::Bytes)
        });
        (self, symbol)
    }

    /// A run of zeros and the coefficient after it.
    #[inline(always)]
    pub(crate) fn run_and_value(&mut self, table: &Huffman) -> RunAndValue {
        self.refill();
        self.next_run_and_value(table)
    }

    /// The same after a [`run_and_value`](Self::run_and_value): the bits that it made count are enough for
    /// two, of at most 9 and 15 bits each, and where a code is longer more are brought.
    #[inline(always)]
    pub(crate) fn next_run_and_value(&mut self, table: &Huffman) -> RunAndValue {
        let symbol = self.symbol_of_full(table);
        let behind = self.window << symbol.n_code();
        let value = extended(behind, symbol.n_all() - symbol.n_code());
        self.drop_bits(symbol.n_all());
        RunAndValue { run: symbol.run(), value }
    }

    /// The byte of a code; the table is one of [`Use::Bytes`].
    pub(crate) fn byte(&mut self, table: &Huffman) -> u8 {
        let symbol = self.symbol(table);
        self.drop_bits(symbol.n_all());
        symbol.byte()
    }

    /// A value of `size` bits after a code's byte.
    pub(crate) fn value(&mut self, size: u8) -> i32 {
        self.refill();
        let value = extended(self.window, u32::from(size));
        self.drop_bits(u32::from(size));
        value
    }
}
