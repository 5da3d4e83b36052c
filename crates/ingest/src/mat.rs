//! As much of MATLAB's file format, version 5, as the devkit of ImageNet needs: a struct array whose
//! fields are texts and numbers. Format: "MAT-File Format" of The MathWorks, chapter 1.

use std::io::Read as _;

use flate2::read::ZlibDecoder;

const HEADER_BYTES: usize = 128;
/// The devkit's file has 1.5 MB unpacked.
const UNPACKED_BYTES_MAX: u64 = 64 << 20;

const MI_INT8: u32 = 1;
const MI_UINT8: u32 = 2;
const MI_INT16: u32 = 3;
const MI_UINT16: u32 = 4;
const MI_INT32: u32 = 5;
const MI_UINT32: u32 = 6;
const MI_DOUBLE: u32 = 9;
const MI_MATRIX: u32 = 14;
const MI_COMPRESSED: u32 = 15;
const MI_UTF8: u32 = 16;
const MX_STRUCT: u8 = 2;

/// The value of a struct's field; everything else is left out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Numbers(Vec<f64>),
}

/// The elements of a struct array, each a list of its fields with their names.
pub(crate) type Structs = Vec<Vec<(String, Value)>>;

struct Element<'a> {
    kind: u32,
    data: &'a [u8],
}

/// The struct array of this name; the error says what is wrong.
pub(crate) fn struct_array(file: &[u8], name: &str) -> Result<Structs, String> {
    let header = file.first_chunk::<HEADER_BYTES>().ok_or("it is shorter than its header")?;
    if &header[126..] != b"IM" {
        return Err("it is no little-endian MATLAB file of version 5".to_owned());
    }
    let mut rest = &file[HEADER_BYTES..];
    while let Some(element) = next(&mut rest)? {
        let unpacked;
        let matrix = if element.kind == MI_COMPRESSED {
            unpacked = unpack(element.data)?;
            next(&mut unpacked.as_slice())?.map(|inner| inner.data)
        } else {
            Some(element.data).filter(|_| element.kind == MI_MATRIX)
        };
        if let Some(found) = matrix.map(|matrix| structs(matrix, name)).transpose()?.flatten() {
            return Ok(found);
        }
    }
    Err(format!("it has no struct array {name:?}"))
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let decoder = ZlibDecoder::new(packed);
    decoder
        .take(UNPACKED_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("a compressed part cannot be unpacked: {error}"))?;
    Ok(bytes)
}

/// Takes the next element off; data of up to 4 bytes may share the 8 bytes of the tag.
fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<Element<'a>>, String> {
    if rest.is_empty() {
        return Ok(None);
    }
    let cut = || format!("it ends within an element, {} bytes before its end", rest.len());
    let (tag, after) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
    let [a, b, c, d, e, f, g, h] = *tag;
    let kind = u32::from_le_bytes([a, b, c, d]);
    if kind >> 16 != 0 {
        let data = tag[4..].get(..(kind >> 16) as usize).ok_or_else(cut)?;
        *rest = after;
        return Ok(Some(Element { kind: kind & 0xffff, data }));
    }
    let n_bytes = u32::from_le_bytes([e, f, g, h]) as usize;
    let padded = if kind == MI_COMPRESSED { n_bytes } else { n_bytes.next_multiple_of(8) };
    let data = after.get(..n_bytes).ok_or_else(cut)?;
    *rest = &after[padded.min(after.len())..];
    Ok(Some(Element { kind, data }))
}

/// Class, number of elements, name, and what follows.
fn head(mut matrix: &[u8]) -> Result<(u8, usize, String, &[u8]), String> {
    let mut part = || next(&mut matrix)?.ok_or_else(|| "a matrix lacks its head".to_owned());
    let (flags, dims, name) = (part()?, part()?, part()?);
    let class = flags.data.first().copied().unwrap_or(0);
    let size = numbers(&dims)?.into_iter().product::<f64>();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let n_elements = size as usize;
    Ok((class, n_elements, String::from_utf8_lossy(name.data).into_owned(), matrix))
}

/// The elements of a matrix, if it is a struct array of this name.
fn structs(matrix: &[u8], wanted: &str) -> Result<Option<Structs>, String> {
    let (class, n_elements, name, mut rest) = head(matrix)?;
    if class != MX_STRUCT || name != wanted {
        return Ok(None);
    }
    let mut part = || next(&mut rest)?.ok_or_else(|| "a struct array lacks fields".to_owned());
    let length = numbers(&part()?)?.first().copied().unwrap_or(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let name_bytes = (length as usize).max(1);
    let names = part()?.data.chunks(name_bytes).map(text_until_zero).collect::<Vec<_>>();
    let mut found = Structs::new();
    for _ in 0..n_elements {
        let mut fields = Vec::new();
        for name in &names {
            if let Some(value) = value(part()?.data)? {
                fields.push((name.clone(), value));
            }
        }
        found.push(fields);
    }
    Ok(Some(found))
}

fn value(matrix: &[u8]) -> Result<Option<Value>, String> {
    const MX_CHAR: u8 = 4;
    /// Double, single and the integers.
    const MX_NUMBERS: std::ops::RangeInclusive<u8> = 6..=15;
    if matrix.is_empty() {
        return Ok(None);
    }
    let (class, _, _, mut rest) = head(matrix)?;
    let Some(data) = next(&mut rest)? else { return Ok(None) };
    if class == MX_CHAR {
        return text(&data).map(Value::Text).map(Some);
    }
    MX_NUMBERS.contains(&class).then(|| numbers(&data).map(Value::Numbers)).transpose()
}

fn text(data: &Element<'_>) -> Result<String, String> {
    if matches!(data.kind, MI_UTF8 | MI_UINT8 | MI_INT8) {
        return Ok(String::from_utf8_lossy(data.data).into_owned());
    }
    let unit = |number: f64| -> u16 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        let unit = number as u16;
        unit
    };
    Ok(String::from_utf16_lossy(&numbers(data)?.into_iter().map(unit).collect::<Vec<_>>()))
}

/// MATLAB stores numbers in the smallest type that holds them.
fn numbers(data: &Element<'_>) -> Result<Vec<f64>, String> {
    fn each<const N: usize>(bytes: &[u8], to: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.as_chunks::<N>().0.iter().map(|chunk| to(*chunk)).collect()
    }
    let bytes = data.data;
    Ok(match data.kind {
        MI_INT8 => each(bytes, |b| f64::from(i8::from_le_bytes(b))),
        MI_UINT8 => each(bytes, |b| f64::from(u8::from_le_bytes(b))),
        MI_INT16 => each(bytes, |b| f64::from(i16::from_le_bytes(b))),
        MI_UINT16 => each(bytes, |b| f64::from(u16::from_le_bytes(b))),
        MI_INT32 => each(bytes, |b| f64::from(i32::from_le_bytes(b))),
        MI_UINT32 => each(bytes, |b| f64::from(u32::from_le_bytes(b))),
        MI_DOUBLE => each(bytes, f64::from_le_bytes),
        other => return Err(format!("numbers of type {other} are not known")),
    })
}

fn text_until_zero(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &[u8] = include_bytes!("../tests/golden/plain.mat");
    const PACKED: &[u8] = include_bytes!("../tests/golden/packed.mat");

    /// The values that `tests/golden/mat.py` gives to scipy.
    fn expected() -> Structs {
        let row = |id: f64, wnid: &str, words: &str, n_children: f64, children: &[f64]| {
            let (text, numbers) = (|text: &str| Value::Text(text.to_owned()), Value::Numbers);
            let fields = [
                ("ILSVRC2012_ID", numbers(vec![id])),
                ("WNID", text(wnid)),
                ("words", text(words)),
                ("num_children", numbers(vec![n_children])),
                ("children", numbers(children.to_vec())),
                ("wordnet_height", numbers(vec![0.5])),
            ];
            fields.map(|(name, value)| (name.to_owned(), value)).to_vec()
        };
        vec![
            row(1.0, "n02119789", "kit fox, Vulpes macrotis", 0.0, &[]),
            row(2.0, "n02100735", "Köter", 0.0, &[]),
            row(1001.0, "n00001740", "entity", 2.0, &[1.0, 70000.0]),
        ]
    }

    #[test]
    fn files_of_scipy_are_read() {
        for (name, file) in [("plain", PLAIN), ("packed", PACKED)] {
            assert_eq!(struct_array(file, "synsets").unwrap(), expected(), "{name}");
        }
    }

    #[test]
    fn other_files_and_cuts_are_refused() {
        let message = struct_array(PLAIN, "synset").unwrap_err();
        assert_eq!(message, "it has no struct array \"synset\"");
        assert_eq!(struct_array(b"x", "synsets").unwrap_err(), "it is shorter than its header");
        let mut other = PLAIN.to_vec();
        other[126..128].copy_from_slice(b"MI");
        let message = struct_array(&other, "synsets").unwrap_err();
        assert_eq!(message, "it is no little-endian MATLAB file of version 5");
        for file in [PLAIN, PACKED] {
            for length in 0..file.len() {
                assert!(struct_array(&file[..length], "synsets").is_err(), "cut to {length}");
            }
        }
    }
}
