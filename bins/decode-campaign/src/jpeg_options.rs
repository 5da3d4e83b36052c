//! The options of a JPEG file, as they are drawn.

use crate::dice::Dice;
use crate::jpeg_code::Padding;

/// The markers of frame headers that matter here.
pub(crate) const BASELINE: u8 = 0xc0;
const EXTENDED: u8 = 0xc1;
pub(crate) const PROGRESSIVE: u8 = 0xc2;
pub(crate) const LOSSLESS: u8 = 0xc3;
pub(crate) const ARITHMETIC: [u8; 2] = [0xc9, 0xca];
/// How often each is drawn.
const PROCESSES: [u8; 10] = [
    BASELINE,
    BASELINE,
    BASELINE,
    EXTENDED,
    EXTENDED,
    PROGRESSIVE,
    PROGRESSIVE,
    PROGRESSIVE,
    PROGRESSIVE,
    LOSSLESS,
];

/// What the frame header says of a component.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Component {
    pub(crate) id: u8,
    pub(crate) h: usize,
    pub(crate) v: usize,
    pub(crate) table: usize,
}

/// The options of a file.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// The marker of the frame header.
    pub(crate) process: u8,
    pub(crate) precision: u8,
    pub(crate) components: Vec<Component>,
    /// The range of the coefficients.
    pub(crate) range: Range,
    /// Where the tables of codes come from.
    pub(crate) codes: Codes,
    pub(crate) padding: Padding,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Range {
    /// What an encoder of pictures writes.
    Picture,
    /// All that the codes of the format can say.
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codes {
    Drawn,
    Standard,
    /// The file leaves them out.
    LeftOut,
}

/// Draws the options of a file.
pub(crate) fn options(dice: &mut Dice) -> Options {
    let n = dice.pick(&[1, 1, 1, 3, 3, 3, 3, 3, 3, 4]);
    let process = if dice.percent(4) { dice.pick(&ARITHMETIC) } else { dice.pick(&PROCESSES) };
    let is_progressive = process == PROGRESSIVE;
    let longest = if dice.percent(2) { 400 } else { dice.pick(&[9, 20, 40, 70]) };
    let codes = match dice.below(10) {
        0 if process < PROGRESSIVE => Codes::LeftOut,
        1 if process < PROGRESSIVE => Codes::Standard,
        _ => Codes::Drawn,
    };
    let range = if codes == Codes::Drawn && dice.percent(12) { Range::All } else { Range::Picture };
    let ids = dice.pick(&[
        *b"\x01\x02\x03\x04",
        *b"\x01\x02\x03\x04",
        *b"\0\x01\x02\x03",
        *b"RGBA",
        *b"RGBA",
        *b"\x01\x22\x23\x24",
        *b"\x05\x05\x05\x05",
        *b"\xff\x80\x07\x01",
    ]);
    let one_table = dice.percent(30);
    let mut components: Vec<Component> = (0..n)
        .map(|i| Component {
            id: ids[i],
            h: 1,
            v: 1,
            table: if one_table { 0 } else { dice.below(4) },
        })
        .collect();
    sample(dice, &mut components);
    // Equal names are taken in turn, which only a scan of all components can use.
    let n_blocks: usize = components.iter().map(|c| c.h * c.v).sum();
    if n > 1 && (is_progressive || n_blocks > 10) && components[0].id == components[1].id {
        components.iter_mut().zip(1..).for_each(|(component, id)| component.id = id);
    }
    Options {
        width: 1 + dice.below(longest),
        height: 1 + dice.below(longest),
        process,
        precision: if process == EXTENDED && dice.percent(6) { 12 } else { 8 },
        components,
        range,
        codes,
        padding: if dice.percent(10) { Padding::Zeros } else { Padding::Ones },
    }
}

/// Draws the sampling factors: those of cameras, those that divide one another, or any.
fn sample(dice: &mut Dice, components: &mut [Component]) {
    match dice.below(10) {
        0 | 1 => {}
        2..6 => {
            let first = dice.pick(&[(2, 2), (2, 1), (1, 2), (4, 1), (4, 2), (1, 4), (2, 4)]);
            (components[0].h, components[0].v) = first;
            if components.len() == 4 && dice.percent(70) {
                (components[3].h, components[3].v) = first;
            }
        }
        6..9 => {
            let most = dice.pick(&[(2, 2), (4, 2), (2, 4), (4, 4), (3, 1), (1, 3), (3, 3)]);
            for component in &mut *components {
                let factor = |dice: &mut Dice, most: usize| {
                    let n = 1 + dice.below(most);
                    if most.is_multiple_of(n) { n } else { most }
                };
                (component.h, component.v) = (factor(dice, most.0), factor(dice, most.1));
            }
        }
        _ => {
            for component in components {
                (component.h, component.v) = (1 + dice.below(4), 1 + dice.below(4));
            }
        }
    }
}
