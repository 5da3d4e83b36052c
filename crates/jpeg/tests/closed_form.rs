//! Files of one gray block, whose samples are known, and what is said of wrong ones.

use moco_jpeg::{BelowRegion, JpegError, Region, decode, read_header};

/// 8 x 8 pixels whose first coefficient is `coefficient`, from 64 to 127, and all others 0; a table of
/// codes has one code, `0`.
fn block(coefficient: u8, quantization: u8) -> Vec<u8> {
    let codes = |kind, byte| [&[0xff, 0xc4, 0, 20, kind, 1][..], &[0; 15], &[byte]].concat();
    [
        &[0xff, 0xd8, 0xff, 0xdb, 0, 67, 0][..],
        &[quantization; 64],
        &[0xff, 0xc0, 0, 11, 8, 0, 8, 0, 8, 1, 1, 0x11, 0],
        // A coefficient of 7 bits; the end of the block.
        &codes(0, 7),
        &codes(0x10, 0),
        &[0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0, coefficient, 0x7f, 0xff, 0xd9],
    ]
    .concat()
}

fn pixels(file: &[u8]) -> Result<Vec<u8>, JpegError> {
    let jpeg = read_header(file)?;
    let whole = Region::whole(jpeg.width, jpeg.height);
    decode(jpeg, whole, BelowRegion::Read)
}

/// The first coefficient is 8 times the mean, which lies around 128 (T.81, A.3.3).
#[test]
fn a_block_of_one_coefficient_has_its_mean_everywhere() {
    for (coefficient, quantization, mean) in
        [(64, 1, 136), (100, 1, 141), (64, 8, 192), (127, 4, 192), (127, 16, 255)]
    {
        let expected = vec![mean; 3 * 64];
        assert_eq!(pixels(&block(coefficient, quantization)).unwrap(), expected, "{coefficient}");
    }
}

#[test]
fn a_file_cut_anywhere_is_truncated() {
    let file = block(64, 8);
    // The marker of the end, cut in two, still ends the scan.
    for end in 2..file.len() - 1 {
        assert_eq!(pixels(&file[..end]), Err(JpegError::Truncated), "{end}");
    }
    assert_eq!(
        JpegError::Truncated.to_string(),
        "JPEG is truncated: the data ends before the end of the picture"
    );
}

#[test]
fn the_reason_is_named() {
    let frame = 71;
    let message = |at: usize, byte: u8| {
        let mut bad = block(64, 8);
        bad[at] = byte;
        pixels(&bad).unwrap_err().to_string()
    };
    for (at, byte, expected) in [
        (frame + 6, 0, "JPEG is damaged: the frame header has a side of 0"),
        (frame + 11, 0x51, "JPEG is damaged: a sampling factor is not from 1 to 4"),
        (frame + 12, 1, "JPEG is damaged: a scan needs a quantization table that is not there"),
        (
            frame + 4,
            12,
            "JPEG has samples of more than 8 bits, which is not decoded; \
             save it as a baseline or progressive JPEG",
        ),
    ] {
        assert_eq!(message(at, byte), expected);
    }
}

#[test]
fn a_region_past_the_picture_is_refused() {
    let whole = Region { top: 0, left: 0, height: 8, width: 8 };
    for region in [
        Region { top: 1, ..whole },
        Region { left: 1, ..whole },
        Region { height: 0, ..whole },
        Region { width: 0, ..whole },
        Region { top: u32::MAX, ..whole },
    ] {
        let file = block(64, 8);
        let error = decode(read_header(&file).unwrap(), region, BelowRegion::Skip).unwrap_err();
        assert_eq!(error, JpegError::RegionOutside { region, width: 8, height: 8 });
    }
    let region = Region { top: 1, left: 2, ..whole };
    let error = JpegError::RegionOutside { region, width: 8, height: 8 }.to_string();
    let expected = "region of 8x8 pixels at row 1, column 2 is not within the JPEG of 8x8 pixels";
    assert_eq!(error, expected);
}
