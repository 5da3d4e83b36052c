//! Whole recipes from JPEG files to views, against Pillow 12.3.0 and torchvision 0.29.2
//! (`golden/generate_recipes.py`): the exact ones bit for bit, the fast ones within the bounds of `docs/augmentation.md`.

use moco_augment::{
    Augmentation as _, CropBox, DrawnView, Fidelity, Frame, JitterDraw, JitterOp, Recipe,
    RecipeConfig, RecipeKind, RgbImage, Step,
};
use moco_rng::{At, Purpose, Seed};
use serde_json::Value;

const JSON: &str = include_str!("golden/recipes.json");
const BLOB: &[u8] = include_bytes!("golden/recipes.bin");

/// The greatest and the greatest mean difference of a view's samples in `fast`, from each cause separately.
/// Grayscale, blur and flip are exact.
const RESIZE_BOUND: (u8, f64) = (1, 0.03);
const JITTER_BOUND: (u8, f64) = (8, 1.5);
/// All of them together.
const VIEW_BOUND: (u8, f64) = (8, 1.5);

fn golden() -> Value {
    serde_json::from_str(JSON).unwrap()
}

fn blob(range: &Value) -> &'static [u8] {
    let [offset, length] = [0, 1].map(|i| usize::try_from(range[i].as_u64().unwrap()).unwrap());
    &BLOB[offset..offset + length]
}

fn number(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

fn step(value: &Value) -> Step {
    match value[0].as_str().unwrap() {
        "jitter" => {
            let ops =
                [JitterOp::Brightness, JitterOp::Contrast, JitterOp::Saturation, JitterOp::Hue];
            let factor = |i: usize| value[2][i].as_f64().unwrap();
            Step::Jitter(JitterDraw {
                order: std::array::from_fn(|i| ops[number(&value[1][i]) as usize]),
                brightness: factor(0),
                contrast: factor(1),
                saturation: factor(2),
                hue: factor(3),
            })
        }
        "gray" => Step::Grayscale,
        "blur" => Step::Blur { sigma: value[1].as_f64().unwrap() },
        _ => Step::Flip,
    }
}

fn drawn(case: &Value, side: u32) -> DrawnView {
    let frame = if case["recipe"] == "eval" {
        Frame::CenterCrop { resize: number(&case["resize"]) }
    } else {
        let [top, left, height, width] = [0, 1, 2, 3].map(|i| number(&case["box"][i]));
        Frame::ResizedCrop(CropBox { top, left, height, width })
    };
    DrawnView {
        source: (number(&case["size"][0]), number(&case["size"][1])),
        image_size: side,
        frame,
        steps: case["steps"].as_array().unwrap().iter().map(step).collect(),
    }
}

fn adler32(bytes: &[u8]) -> u64 {
    let (a, b) = bytes.iter().fold((1_u64, 0_u64), |(a, b), byte| {
        let a = (a + u64::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    b << 16 | a
}

fn decoded(golden: &Value, case: &Value) -> RgbImage {
    RgbImage::decode(blob(&golden["files"][number(&case["file"]) as usize]["file"])).unwrap()
}

/// Greatest and mean difference of two views.
fn difference(a: &RgbImage, b: &RgbImage) -> (u8, f64) {
    let pairs = || a.pixels().iter().zip(b.pixels()).map(|(a, b)| a.abs_diff(*b));
    let sum: f64 = pairs().map(f64::from).sum();
    (pairs().max().unwrap(), sum / a.pixels().len() as f64)
}

#[test]
fn exact_views_of_jpeg_files_are_those_of_pillow() {
    let golden = golden();
    for file in golden["files"].as_array().unwrap() {
        let image = RgbImage::decode(blob(&file["file"])).unwrap();
        assert_eq!(adler32(image.pixels()), file["adler32"].as_u64().unwrap(), "{file}");
    }
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 200);
    for case in cases {
        let view = drawn(case, number(&golden["side"])).apply(&decoded(&golden, case)).unwrap();
        if case["view"].is_array() {
            let off = view.pixels().iter().zip(blob(&case["view"])).filter(|(a, b)| a != b).count();
            assert_eq!(off, 0, "samples off in {case}");
        }
        assert_eq!(adler32(view.pixels()), case["adler32"].as_u64().unwrap(), "{case}");
    }
}

#[test]
fn fast_views_differ_within_the_bounds() {
    let golden = golden();
    let [mut worst_resize, mut worst_jitter, mut worst_view] = [(0, 0.0); 3];
    let worse = |worst: &mut (u8, f64), (max, mean): (u8, f64)| {
        *worst = (worst.0.max(max), worst.1.max(mean));
    };
    for case in golden["cases"].as_array().unwrap() {
        let image = decoded(&golden, case);
        let drawn = drawn(case, number(&golden["side"]));
        let exact = drawn.apply_as(&image, Fidelity::Exact).unwrap();
        let fast = drawn.apply_as(&image, Fidelity::Fast).unwrap();
        worse(&mut worst_view, difference(&exact, &fast));
        let frame = DrawnView { steps: Vec::new(), ..drawn.clone() };
        let square = frame.apply(&image).unwrap();
        worse(
            &mut worst_resize,
            difference(&square, &frame.apply_as(&image, Fidelity::Fast).unwrap()),
        );
        for step in &drawn.steps {
            let (mut exact, mut fast) = (square.clone(), square.clone());
            step.apply(&mut exact);
            step.apply_as(&mut fast, Fidelity::Fast);
            match step {
                Step::Jitter(_) => worse(&mut worst_jitter, difference(&exact, &fast)),
                _ => assert_eq!(exact, fast, "{step:?}"),
            }
        }
    }
    let bounds =
        [(worst_resize, RESIZE_BOUND), (worst_jitter, JITTER_BOUND), (worst_view, VIEW_BOUND)];
    for ((max, mean), bound) in bounds {
        assert!(max <= bound.0 && mean <= bound.1, "{bounds:?}");
    }
    // Fast is another computation, not the exact one under another name.
    assert!(worst_jitter.0 > 0, "{bounds:?}");
}

#[test]
fn views_of_a_file_are_the_views_of_its_decoded_image() {
    let golden = golden();
    let streams = |index| {
        let stream = |view| Seed(7).stream(Purpose::Augment, At { epoch: 0, index, view });
        vec![stream(0), stream(1)]
    };
    for kind in [RecipeKind::V1, RecipeKind::V2, RecipeKind::Cifar, RecipeKind::Eval { resize: 40 }]
    {
        let recipe =
            Recipe::new(RecipeConfig { image_size: 32, crop_scale: (0.08, 0.5), kind }).unwrap();
        for fidelity in [Fidelity::Exact, Fidelity::Fast] {
            let recipe = recipe.clone().with_fidelity(fidelity);
            for (index, file) in (0..).zip(golden["files"].as_array().unwrap()) {
                let file = blob(&file["file"]);
                let image = RgbImage::decode(file).unwrap();
                let expected: Vec<RgbImage> = streams(index)
                    .into_iter()
                    .map(|stream| recipe.view(&image, stream).unwrap())
                    .collect();
                assert_eq!(recipe.views(file, streams(index)).unwrap(), expected, "{kind:?}");
            }
        }
    }
}
