//! Views and decoded files against Pillow 12.3.0 and torchvision 0.29.2 (`golden/generate.py`).
//!
//! Every transform and every file is compared byte for byte.

use moco_augment::{
    CropBox, RandomResizedCrop, RgbImage, adjust_brightness, adjust_contrast, adjust_hue,
    adjust_saturation, center_crop, flip_horizontal, gaussian_blur, grayscale, resize_shorter_side,
    resized_crop,
};
use moco_rng::{At, Purpose, Seed};
use serde_json::Value;

const JSON: &str = include_str!("golden/views.json");
const BLOB: &[u8] = include_bytes!("golden/views.bin");

#[test]
fn the_files_name_their_generator_and_its_versions() {
    let golden: Value = serde_json::from_str(JSON).unwrap();
    assert_eq!(golden["generator"], "crates/augment/tests/golden/generate.py");
    for line in include_str!("golden/requirements.txt").lines() {
        let (package, version) = line.split_once("==").unwrap();
        assert_eq!(golden["versions"][package], version, "{package}");
    }
}

fn cases(key: &str) -> Vec<Value> {
    let golden: Value = serde_json::from_str(JSON).unwrap();
    let cases = golden[key].as_array().unwrap().clone();
    assert!(!cases.is_empty(), "no cases of {key}");
    cases
}

fn blob(range: &Value) -> &'static [u8] {
    let [offset, length] = numbers(range);
    &BLOB[offset as usize..][..length as usize]
}

fn numbers<const N: usize>(value: &Value) -> [u32; N] {
    let list: Vec<u32> = value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| u32::try_from(v.as_u64().unwrap()).unwrap())
        .collect();
    list.try_into().unwrap()
}

fn floats<const N: usize>(value: &Value) -> [f64; N] {
    let list: Vec<f64> = value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    list.try_into().unwrap()
}

/// The images of `source` in the generator.
fn source(kind: &str, width: u32, height: u32) -> RgbImage {
    let noise = |x: u32, y: u32, c: u32| {
        let h = (u64::from(x) * 73_856_093)
            ^ (u64::from(y) * 19_349_663)
            ^ (u64::from(c + 1) * 83_492_791);
        let h = (h ^ (h >> 13)).wrapping_mul(0x5bd1_e995) & 0xffff_ffff;
        ((h ^ (h >> 15)) & 255) as u8
    };
    let waves = |x: u32, y: u32, c: u32| {
        let t = (x * (3 + 2 * c) + y * (7 - 2 * c) + 40 * c) % 510;
        t.min(510 - t).min(255) as u8
    };
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            for c in 0..3 {
                pixels.push(if kind == "noise" { noise(x, y, c) } else { waves(x, y, c) });
            }
        }
    }
    RgbImage::new(width, height, pixels).unwrap()
}

fn apply(image: &mut RgbImage, step: &Value) {
    let value = step[1].as_f64().unwrap_or(f64::NAN);
    match step[0].as_str().unwrap() {
        "brightness" => adjust_brightness(image, value),
        "contrast" => adjust_contrast(image, value),
        "saturation" => adjust_saturation(image, value),
        "hue" => adjust_hue(image, value),
        "grayscale" => grayscale(image),
        "blur" => gaussian_blur(image, value),
        "flip" => flip_horizontal(image),
        other => panic!("step {other}"),
    }
}

fn check(case: &Value, got: &RgbImage) {
    let expected = blob(&case["view"]);
    let off = got.pixels().iter().zip(expected).filter(|(a, b)| a != b).count();
    assert_eq!((got.pixels().len(), off), (expected.len(), 0), "samples off in {case}");
}

#[test]
fn transforms_and_their_compositions_are_bit_exact() {
    for case in cases("views") {
        let [width, height] = numbers(&case["size"]);
        let mut image = source(case["source"].as_str().unwrap(), width, height);
        if case["crop"].as_array().is_some_and(|values| !values.is_empty()) {
            let [top, left, height, width, size] = numbers(&case["crop"]);
            image = resized_crop(&image, &CropBox { top, left, height, width }, size).unwrap();
        }
        for step in case["steps"].as_array().unwrap() {
            apply(&mut image, step);
        }
        check(&case, &image);
    }
}

#[test]
fn evaluation_is_bit_exact() {
    for case in cases("eval") {
        let [width, height] = numbers(&case["size"]);
        let image = source(case["source"].as_str().unwrap(), width, height);
        let [resize, side] =
            ["resize", "side"].map(|key| u32::try_from(case[key].as_u64().unwrap()).unwrap());
        check(&case, &center_crop(&resize_shorter_side(&image, resize).unwrap(), side));
    }
}

#[test]
fn all_24_bit_colors_are_exact() {
    let pixels =
        (0..1_u32 << 24).flat_map(|n| [n as u8, (n >> 8) as u8, (n >> 16) as u8]).collect();
    let colors = RgbImage::new(4096, 4096, pixels).unwrap();
    for case in cases("all_colors") {
        let mut image = colors.clone();
        apply(&mut image, &case["steps"][0]);
        assert_eq!(u64::from(adler32(image.pixels())), case["adler32"].as_u64().unwrap(), "{case}");
    }
}

fn adler32(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1_u32, 0_u32);
    // 5552 bytes is the most before the sums need reducing.
    for block in bytes.chunks(5552) {
        for byte in block {
            a += u32::from(*byte);
            b += a;
        }
        (a, b) = (a % 65_521, b % 65_521);
    }
    b << 16 | a
}

#[test]
fn files_of_every_pixel_type_and_sampling_are_exact() {
    for case in cases("png").into_iter().chain(cases("jpeg")) {
        let image = RgbImage::decode(blob(&case["file"])).unwrap();
        assert_eq!([image.width(), image.height()], numbers(&case["size"]), "{case}");
        assert_eq!(image.pixels(), blob(&case["rgb"]), "{case}");
    }
}

#[test]
fn boxes_are_distributed_as_torchvision_draws_them() {
    for case in cases("boxes") {
        let [width, height] = numbers(&case["size"]);
        let crop = RandomResizedCrop::with_scale(floats::<2>(&case["scale"]).into());
        let mut stream = Seed(3).stream(Purpose::Augment, At::index(u64::from(width)));
        if case["fallback"].is_array() {
            let [top, left, h, w] = numbers(&case["fallback"]);
            let expected = CropBox { top, left, height: h, width: w };
            assert_eq!(crop.draw(width, height, &mut stream), expected, "{case}");
            continue;
        }
        let n = case["n"].as_u64().unwrap() as usize;
        let boxes: Vec<[f64; 4]> = (0..n)
            .map(|_| crop.draw(width, height, &mut stream))
            .map(|b| [b.top, b.left, b.height, b.width].map(f64::from))
            .collect();
        let (means, stds): ([f64; 4], [f64; 4]) = (floats(&case["mean"]), floats(&case["std"]));
        for side in 0..4 {
            let mean = boxes.iter().map(|b| b[side]).sum::<f64>() / n as f64;
            let variance = boxes.iter().map(|b| (b[side] - mean).powi(2)).sum::<f64>() / n as f64;
            // Two samples of this size: the means differ by less than 4 standard errors.
            let standard_error = stds[side] * (2.0 / n as f64).sqrt();
            assert!(
                (mean - means[side]).abs() < 4.0 * standard_error,
                "{side} of {case}: mean {mean}"
            );
            assert!(
                (variance.sqrt() / stds[side] - 1.0).abs() < 0.03,
                "{side} of {case}: {variance}"
            );
        }
    }
}
