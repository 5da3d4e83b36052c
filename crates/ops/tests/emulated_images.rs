//! Changes of images on the emulated GPU, in closed form. `tests/images_on_gpu.rs` of the workspace compares
//! them with the views of the CPU.

use candle_core::{DType, Device, Tensor};
use moco_ops::{ImageStep, augment_images, emulate};

use ImageStep::{Blur, Brightness, Contrast, Flip, Grayscale, Hue, Saturation};

fn images(samples: &[u8], n: usize) -> Tensor {
    let pixels = samples.len() / n / 3;
    let side = (1..=pixels).find(|side| side * side == pixels).unwrap();
    Tensor::from_slice(samples, (n, side, side, 3), &Device::Cpu).unwrap()
}

fn changed(samples: &[u8], steps: &[Vec<ImageStep>]) -> (Vec<u8>, Vec<String>) {
    let pixels = images(samples, steps.len());
    let (y, kernels) = emulate(|| augment_images(&pixels, steps).unwrap());
    assert_eq!((y.dims(), y.dtype()), (pixels.dims(), DType::U8));
    (y.flatten_all().unwrap().to_vec1().unwrap(), kernels)
}

/// Red and a dark blue above two grays; lumas 76, 18, 7 and 200, mean 75.25.
const FOUR: [u8; 12] = [255, 0, 0, 10, 20, 30, 7, 7, 7, 200, 200, 200];

#[test]
fn each_step_is_its_formula() {
    let grays = [76, 76, 76, 18, 18, 18, 7, 7, 7, 200, 200, 200];
    let cases: [(Vec<ImageStep>, [u8; 12]); 14] = [
        (vec![], FOUR),
        (vec![Brightness(1.0)], FOUR),
        (vec![Brightness(0.5)], [127, 0, 0, 5, 10, 15, 3, 3, 3, 100, 100, 100]),
        (vec![Brightness(1.5)], [255, 0, 0, 15, 30, 45, 10, 10, 10, 255, 255, 255]),
        (vec![Contrast(0.0)], [75; 12]),
        (vec![Contrast(1.0)], FOUR),
        (vec![Contrast(2.0)], [255, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255]),
        // What contrast sees is what the steps before it made.
        (vec![Brightness(0.0), Contrast(0.0)], [0; 12]),
        (vec![Saturation(0.0)], grays),
        (vec![Grayscale], grays),
        (vec![Hue(1.0 / 3.0)], [0, 255, 0, 30, 10, 20, 7, 7, 7, 200, 200, 200]),
        (vec![Flip], [10, 20, 30, 255, 0, 0, 200, 200, 200, 7, 7, 7]),
        (vec![Flip, Flip], FOUR),
        (vec![Blur { sigma: 0.0 }], FOUR),
    ];
    let all: Vec<u8> = FOUR.repeat(cases.len());
    let (steps, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let (got, kernels) = changed(&all, &steps);
    for ((got, expected), steps) in got.chunks(12).zip(&expected).zip(&steps) {
        assert_eq!(got, expected, "{steps:?}");
    }
    // Product and sum are rounded one after the other: 7 − 1.2·5 is 1, and fused it would be below.
    let grays = [[2; 3], [12; 3], [7; 3], [7; 3]].concat();
    let expected = [[1; 3], [13; 3], [7; 3], [7; 3]].concat();
    assert_eq!(changed(&grays, &[vec![Contrast(1.2)]]).0, expected);
    // All images at once, and nothing for a blur that changes nothing.
    assert_eq!(kernels, ["image_luma_sums", "image_rows"]);
}

#[test]
fn a_flat_image_stays_and_a_dot_spreads_by_sigma() {
    const SIDE: usize = 41;
    let mut dot = vec![0; 3 * SIDE * SIDE];
    dot[3 * (20 * SIDE + 20)..][..3].fill(255);
    let flat = vec![200; 3 * SIDE * SIDE];
    let blur = vec![Blur { sigma: 1.0 }];
    let (got, kernels) = changed(&[dot, flat].concat(), &[blur.clone(), blur]);
    assert_eq!(kernels, ["image_rows", "image_columns"]);
    let (dot, flat) = got.split_at(3 * SIDE * SIDE);
    assert!(flat.iter().all(|sample| *sample == 200));
    let sum = |weight: &dyn Fn(f64, f64) -> f64| -> f64 {
        let green = dot.iter().skip(1).step_by(3).enumerate();
        green
            .map(|(i, v)| {
                f64::from(*v) * weight((i % SIDE) as f64 - 20.0, (i / SIDE) as f64 - 20.0)
            })
            .sum()
    };
    let all = sum(&|_, _| 1.0);
    assert!((all - 255.0).abs() < 26.0, "{all}");
    for (variance, of) in [(sum(&|x, _| x * x), "columns"), (sum(&|_, y| y * y), "rows")] {
        assert!((variance / all - 1.0).abs() < 0.15, "{of}: {}", variance / all);
    }
}

#[test]
fn nothing_is_done_to_no_images() {
    let none = Tensor::zeros((0, 5, 5, 3), DType::U8, &Device::Cpu).unwrap();
    let (y, kernels) = emulate(|| augment_images(&none, &[]).unwrap());
    assert_eq!((y.dims(), kernels.len()), (&[0, 5, 5, 3][..], 0));
}

#[test]
fn what_does_not_fit_is_named() {
    let zeros = |dims: &[usize], dtype| Tensor::zeros(dims, dtype, &Device::Cpu).unwrap();
    let good = || zeros(&[1, 2, 2, 3], DType::U8);
    let cases = [
        (zeros(&[1, 2, 2, 3], DType::F32), vec![vec![]], "[N, S, S, 3] of u8 and not F32"),
        (zeros(&[1, 2, 3, 3], DType::U8), vec![vec![]], "has shape [1, 2, 3, 3]"),
        (zeros(&[1, 2, 2, 4], DType::U8), vec![vec![]], "has shape [1, 2, 2, 4]"),
        (zeros(&[0, 8001, 8001, 3], DType::U8), vec![], "S at most 8000"),
        (good(), vec![], "`steps` has shape [0], expected a list for each of 1 images"),
        (good(), vec![vec![Contrast(f64::NAN)]], "`contrast` = NaN, expected a number"),
        (good(), vec![vec![Flip, Brightness(1e39)]], "`brightness` = 1000000"),
        (good(), vec![vec![Saturation(f64::INFINITY)]], "`saturation` = inf"),
        (good(), vec![vec![Hue(1.5)]], "`hue` = 1.5, expected from -1 to 1"),
        (good(), vec![vec![Blur { sigma: -0.1 }]], "`sigma` = -0.1, expected from 0 to 100"),
        (good(), vec![vec![Blur { sigma: f64::NAN }]], "`sigma` = NaN"),
    ];
    for (pixels, steps, expected) in cases {
        let (result, kernels) = emulate(|| augment_images(&pixels, &steps));
        let message = result.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert_eq!(kernels.len(), 0);
    }
}

#[test]
fn a_cpu_is_told_what_to_call() {
    let pixels = images(&FOUR, 1);
    assert_eq!(
        augment_images(&pixels, &[vec![]]).unwrap_err().to_string(),
        "augment_images: only for tensors on a GPU; on a CPU, moco_augment::Square::finish does it"
    );
}
