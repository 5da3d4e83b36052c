//! Entropy coding of JPEG scans: symbols and bits become tables of codes and bytes.

use std::collections::BTreeSet;

use crate::dice::Dice;

/// Tables of a class, first coefficients before the others.
pub(crate) const N_PLACES: usize = 4;

/// What a scan is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Token {
    /// A byte, by the code that a table has for it.
    Code { table: usize, byte: u8 },
    /// A number of bits.
    Bits { n: u32, value: u32 },
    /// A restart.
    Restart,
}

/// A table as a file has it: how many codes there are of each length, and their bytes.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) counts: [u8; 16],
    pub(crate) bytes: Vec<u8>,
}

impl Table {
    /// Codes for the bytes that `tokens` need of a table: some of 1, 2, … bits, the others all of one length.
    pub(crate) fn drawn(dice: &mut Dice, tokens: &[Token], place: usize) -> Self {
        let used = tokens.iter().filter_map(|token| match token {
            Token::Code { table, byte } if *table == place => Some(*byte),
            _ => None,
        });
        let used: BTreeSet<u8> = used.collect();
        let mut bytes: Vec<u8> = used.into_iter().collect();
        if bytes.is_empty() {
            bytes.push(0);
        }
        dice.shuffle(&mut bytes);
        let mut counts = [0; 16];
        let n_short = dice.below(7).min(bytes.len() - 1);
        counts[..n_short].fill(1);
        let rest = bytes.len() - n_short;
        // One more place than there are codes, as the code of only ones is not allowed.
        let length = n_short + (usize::BITS - rest.leading_zeros()) as usize;
        // A table of 256 bytes fills no counter of its own.
        let (here, longer) = if rest > 255 { (128, rest - 128) } else { (rest, 0) };
        counts[length - 1] = u8::try_from(here).unwrap_or_default();
        if longer > 0 {
            counts[length] = u8::try_from(longer).unwrap_or_default();
        }
        Self { counts, bytes }
    }

    /// The one that T.81 prints, of first coefficients or others, for luma or chroma.
    pub(crate) fn standard(place: usize) -> Self {
        let (counts, bytes) = moco_jpeg::standard_codes(place / N_PLACES, place % N_PLACES);
        Self { counts, bytes: bytes.to_vec() }
    }

    /// The segment's content for this table.
    pub(crate) fn segment(&self, place: usize) -> Vec<u8> {
        let [class, number] =
            [place / N_PLACES, place % N_PLACES].map(|n| u8::try_from(n).unwrap_or_default());
        [&[class << 4 | number][..], &self.counts, &self.bytes].concat()
    }

    /// Length and code of a byte.
    fn code(&self, byte: u8) -> Option<(u32, u32)> {
        let (mut code, mut place) = (0, 0);
        for (length, count) in (1..).zip(self.counts) {
            for _ in 0..count {
                if self.bytes[place] == byte {
                    return Some((length, code));
                }
                (code, place) = (code + 1, place + 1);
            }
            code <<= 1;
        }
        None
    }
}

/// Writes tokens as the bytes of a scan; `padding` fills up its last byte. Nothing if a table lacks a byte.
pub(crate) fn write(
    tokens: &[Token],
    tables: &[Option<Table>],
    padding: Padding,
) -> Option<Vec<u8>> {
    let mut bits = Bits { bytes: Vec::new(), buffer: 0, n: 0 };
    let mut n_restarts = 0_u8;
    for token in tokens {
        match token {
            Token::Code { table, byte } => {
                let (n, code) = tables.get(*table)?.as_ref()?.code(*byte)?;
                bits.put(n, code);
            }
            Token::Bits { n, value } => bits.put(*n, *value),
            Token::Restart => {
                bits.pad(padding);
                bits.bytes.extend([0xff, 0xd0 + n_restarts % 8]);
                n_restarts = n_restarts.wrapping_add(1);
            }
        }
    }
    bits.pad(padding);
    Some(bits.bytes)
}

/// The bits that fill up a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Padding {
    Ones,
    Zeros,
}

struct Bits {
    bytes: Vec<u8>,
    buffer: u64,
    n: u32,
}

impl Bits {
    fn put(&mut self, n: u32, value: u32) {
        self.buffer = self.buffer << n | u64::from(value) & ((1 << n) - 1);
        self.n += n;
        while self.n >= 8 {
            self.n -= 8;
            let byte = (self.buffer >> self.n).to_le_bytes()[0];
            self.bytes.push(byte);
            if byte == 0xff {
                self.bytes.push(0);
            }
        }
    }

    fn pad(&mut self, padding: Padding) {
        let n = (8 - self.n) % 8;
        self.put(n, if padding == Padding::Ones { 0xff } else { 0 });
    }
}
