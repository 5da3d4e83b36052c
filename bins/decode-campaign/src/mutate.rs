//! Damage to sound files: bits and bytes changed, cut, inserted, repeated, and parts that change places.

use std::ops::Range;

use crate::dice::Dice;
use crate::png_file::{SIGNATURE, checksum};

/// Damages a file in one to four places.
pub(crate) fn mutate(dice: &mut Dice, mut file: Vec<u8>) -> Vec<u8> {
    for _ in 0..=dice.below(4).min(dice.below(4)) {
        once(dice, &mut file);
    }
    // Otherwise checksums would hide most damage behind the first look.
    if dice.percent(60) {
        correct_checksums(&mut file);
    }
    file
}

fn once(dice: &mut Dice, file: &mut Vec<u8>) {
    if file.len() < 16 {
        return;
    }
    let at = 2 + dice.below(file.len() - 2);
    let most = dice.pick(&[1, 3, 10, 40]);
    let n = 1 + dice.below(most);
    let end = (at + n).min(file.len());
    match dice.below(12) {
        0..4 => file[at] ^= 1 << dice.below(8),
        4 | 5 => file[at] = dice.byte(),
        6 => file.truncate(at),
        7 => {
            file.drain(at..end);
        }
        8 => {
            let bytes = dice.bytes(n);
            file.splice(at..at, bytes);
        }
        9 => {
            let bytes = file[at..end].to_vec();
            file.splice(at..at, bytes);
        }
        10 => file[at..end].fill(0),
        _ => swap_parts(dice, file),
    }
}

/// Changes the places of two segments or chunks, or repeats one in the place of the other.
fn swap_parts(dice: &mut Dice, file: &mut Vec<u8>) {
    let parts = if file.starts_with(&SIGNATURE) { chunks(file) } else { segments(file) };
    if parts.len() < 2 {
        return;
    }
    let first = dice.below(parts.len() - 1);
    let second = first + 1 + dice.below(parts.len() - first - 1);
    let (a, b) = (parts[first].clone(), parts[second].clone());
    let (head, middle, tail) = (&file[..a.start], &file[a.end..b.start], &file[b.end..]);
    let (a, b) = (&file[a], &file[b]);
    *file = match dice.below(3) {
        0 => [head, a, middle, a, tail].concat(),
        1 => [head, middle, b, tail].concat(),
        _ => [head, b, middle, a, tail].concat(),
    };
}

/// The segments before the first scan's data.
fn segments(file: &[u8]) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut at = 2;
    while let Some([0xff, marker, l1, l0]) = file.get(at..).and_then(<[u8]>::first_chunk::<4>) {
        let end = at + 2 + usize::from(u16::from_be_bytes([*l1, *l0]));
        if end > file.len() || *marker == 0xda {
            break;
        }
        parts.push(at..end);
        at = end;
    }
    parts
}

fn chunks(file: &[u8]) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut at = SIGNATURE.len();
    while let Some(length) = file.get(at..).and_then(<[u8]>::first_chunk::<4>) {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let Some(end) = length.checked_add(at + 12).filter(|end| *end <= file.len()) else { break };
        parts.push(at..end);
        at = end;
    }
    parts
}

fn correct_checksums(file: &mut [u8]) {
    if !file.starts_with(&SIGNATURE) {
        return;
    }
    for part in chunks(file) {
        let chunk = &mut file[part];
        let (body, sum) = chunk.split_at_mut(chunk.len() - 4);
        let Some(name) = body[4..].first_chunk::<4>() else { continue };
        let right = checksum(*name, &body[8..]).to_be_bytes();
        sum.copy_from_slice(&right);
    }
}
