//! Views finished on the emulated GPU against those of the CPU, bit for bit. That those are Pillow's is
//! proven in `augment`.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use moco_augment::{
    Augmentation, Exif, Fidelity, JitterDraw, JitterOp, Normalizer, Recipe, RecipeConfig,
    RecipeKind, RgbImage, Square, Step,
};
use moco_feed::{
    FinishOn, InputPlan, Pairing, Placement, TrainingOrder, ViewStages, WorkerPlan, image_steps,
};
use moco_ingest::{EncodedSample, IngestError, OnBadSample, Payload, SampleKey, Sampler, Source};
use moco_ops::{ImageStep, augment_images, emulate, normalize_images};
use moco_rng::{At, Purpose, Seed, Stream};

/// Files of several decoders and sizes, in the form of a golden file of `augment`.
const JSON: &str = include_str!("../crates/augment/tests/golden/recipes.json");
const BLOB: &[u8] = include_bytes!("../crates/augment/tests/golden/recipes.bin");

fn stream(index: u64, view: u32) -> Stream {
    Seed(4).stream(Purpose::Augment, At { epoch: 0, index, view })
}

/// Runs of flat color, gradients and noise, so that ties and extremes occur.
fn square(side: u32, index: u64) -> RgbImage {
    let mut stream = stream(index, 9);
    let mut pixels = Vec::new();
    for i in 0..side * side {
        let (x, y) = (i % side, i / side);
        let noise = stream.below(1 << 24).to_le_bytes();
        pixels.extend(match (x / 4 + y / 4) % 4 {
            0 => [noise[0], noise[1], noise[2]],
            1 => [255, noise[0], 0],
            2 => [(x * 5 % 256) as u8, (y * 7 % 256) as u8, ((x + y) * 3 % 256) as u8],
            _ => [noise[0]; 3],
        });
    }
    RgbImage::new(side, side, pixels).unwrap()
}

/// The squares of one size as a batch, and their steps.
fn batch(squares: &[Square]) -> (Tensor, Vec<Vec<ImageStep>>) {
    let side = squares[0].image.width() as usize;
    let samples: Vec<u8> =
        squares.iter().flat_map(|square| square.image.pixels().to_vec()).collect();
    let pixels = Tensor::from_vec(samples, (squares.len(), side, side, 3), &Device::Cpu).unwrap();
    (pixels, squares.iter().map(|square| image_steps(&square.steps)).collect())
}

/// Finishes squares of one size on the GPU, and fails where they differ from `views`.
fn check(squares: &[Square], views: &[RgbImage]) -> Vec<String> {
    let (pixels, steps) = batch(squares);
    let (got, kernels) = emulate(|| augment_images(&pixels, &steps).unwrap());
    for (i, (square, view)) in squares.iter().zip(views).enumerate() {
        let got: Vec<u8> = got.get(i).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let differs = got.iter().zip(view.pixels()).position(|(got, expected)| got != expected);
        let side = view.width();
        assert_eq!(differs, None, "sample of image {i} of side {side} after {:?}", square.steps);
    }
    kernels
}

fn finished(squares: &[Square]) -> Vec<RgbImage> {
    squares.iter().map(|square| square.clone().finish(Fidelity::Exact)).collect()
}

fn orders() -> Vec<[JitterOp; 4]> {
    let all = [JitterOp::Brightness, JitterOp::Contrast, JitterOp::Saturation, JitterOp::Hue];
    let mut orders = Vec::new();
    for i in 0..256 {
        let at = [i % 4, i / 4 % 4, i / 16 % 4, i / 64];
        if (0..4).all(|place| at.contains(&place)) {
            orders.push(at.map(|place| all[place]));
        }
    }
    assert_eq!(orders.len(), 24);
    orders
}

/// Jitter in all orders and the blurs of the papers, separately and in the orders of both papers.
#[test]
fn every_order_sigma_and_flip_gives_the_bits_of_the_cpu() {
    for side in [1, 2, 7, 32, 33] {
        let mut squares = vec![Square { image: square(side, 0), steps: Vec::new() }];
        for (index, order) in (1..).zip(orders()) {
            let mut stream = stream(index, 0);
            let mut around_one = || stream.range(0.6, 1.4);
            let [brightness, contrast, saturation] = [(); 3].map(|()| around_one());
            let hue = stream.range(-0.5, 0.5);
            let jitter = Step::Jitter(JitterDraw { order, brightness, contrast, saturation, hue });
            let blur = Step::Blur { sigma: 0.1 + 1.9 / 23.0 * (index - 1) as f64 };
            let steps = match index % 5 {
                0 => vec![jitter, Step::Grayscale, blur, Step::Flip],
                1 => vec![Step::Grayscale, jitter, Step::Flip],
                2 => vec![Step::Flip, jitter, blur],
                3 => vec![jitter],
                _ => vec![jitter, blur],
            };
            squares.push(Square { image: square(side, index), steps });
            squares.push(Square { image: square(side, index), steps: vec![blur] });
        }
        let kernels = check(&squares, &finished(&squares));
        assert_eq!(kernels, ["image_luma_sums", "image_rows", "image_columns"], "one launch each");
    }
}

/// Steps that no paper has in this order take more than one round; radii may pass the image.
#[test]
fn any_list_of_steps_gives_the_bits_of_the_cpu() {
    for (side, n_images) in [(5, 40), (34, 12)] {
        let draw = |index: u64| {
            let mut stream = stream(index, 1);
            let n_steps = stream.below(7);
            let step = |stream: &mut Stream| match stream.below(4) {
                0 => {
                    let order = orders()[stream.below(24) as usize];
                    let [brightness, contrast, saturation] =
                        [(); 3].map(|()| stream.range(0.0, 3.0));
                    let hue = stream.range(-1.0, 1.0);
                    Step::Jitter(JitterDraw { order, brightness, contrast, saturation, hue })
                }
                1 => Step::Grayscale,
                2 => {
                    let most = [0.5, 4.0, 30.0][stream.below(3) as usize];
                    Step::Blur { sigma: stream.range(0.0, most) }
                }
                _ => Step::Flip,
            };
            let steps = (0..n_steps).map(|_| step(&mut stream)).collect();
            Square { image: square(side, index), steps }
        };
        let squares: Vec<Square> = (0..n_images).map(draw).collect();
        let kernels = check(&squares, &finished(&squares));
        assert!(kernels.len() > 3, "{kernels:?}");
    }
}

/// The roundings of the hue depend on all three samples; 64 levels of each.
#[test]
fn colors_of_the_whole_cube_are_turned_as_on_the_cpu() {
    let level = |place: u32| (place % 64 * 255 / 63) as u8;
    let colors: Vec<u8> =
        (0..1 << 18).flat_map(|i| [level(i), level(i >> 6), level(i >> 12)]).collect();
    let image = RgbImage::new(512, 512, colors).unwrap();
    let turned = |hue| {
        let order = [JitterOp::Hue, JitterOp::Brightness, JitterOp::Contrast, JitterOp::Saturation];
        let [brightness, contrast, saturation] = [1.0; 3];
        let jitter = JitterDraw { order, brightness, contrast, saturation, hue };
        Square { image: image.clone(), steps: vec![Step::Jitter(jitter)] }
    };
    let squares = [0.0, 0.1, -0.37].map(turned);
    check(&squares, &finished(&squares));
}

/// The swap of the stage: squares from the CPU, finished on the GPU, against whole views of the CPU.
#[test]
fn views_of_the_recipes_do_not_change_when_a_gpu_finishes_them() {
    let golden: serde_json::Value = serde_json::from_str(JSON).unwrap();
    let files = golden["files"].as_array().unwrap();
    let file = |index: u64| {
        let range = &files[index as usize % files.len()]["file"];
        let [offset, len] = [0, 1].map(|i| usize::try_from(range[i].as_u64().unwrap()).unwrap());
        &BLOB[offset..offset + len]
    };
    let kinds = [RecipeKind::V1, RecipeKind::V2, RecipeKind::Cifar, RecipeKind::LinearTrain];
    for kind in kinds {
        let config = RecipeConfig { image_size: 32, crop_scale: (0.2, 1.0), kind };
        let recipe: &dyn Augmentation = &Recipe::new(config).unwrap();
        let (mut squares, mut views) = (Vec::new(), Vec::new());
        for index in 0..60 {
            let streams = || vec![stream(index, 0), stream(index, 1)];
            squares.extend(recipe.squares(file(index), streams()).unwrap());
            views.extend(recipe.views(file(index), streams()).unwrap());
        }
        let has_steps = squares.iter().filter(|square| !square.steps.is_empty()).count();
        assert!(squares.len() == 120 && has_steps > 40, "{kind:?}: {has_steps}");
        check(&squares, &views);
    }
}

/// One batch of the size of ImageNet's views, up to what the encoder gets.
#[test]
fn normalized_views_of_224_pixels_have_the_bits_of_the_cpu() {
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let config = RecipeConfig { image_size: 224, crop_scale: (0.2, 1.0), kind: RecipeKind::V2 };
    let recipe = Recipe::new(config).unwrap();
    let source = square(300, 0);
    let squares: Vec<Square> =
        (0..6).map(|index| recipe.square(&source, stream(index, 0)).unwrap()).collect();
    let n_steps: usize = squares.iter().map(|square| square.steps.len()).sum();
    assert!(n_steps > 8, "{n_steps}");
    let (pixels, steps) = batch(&squares);
    let (got, _) = emulate(|| {
        let pixels = augment_images(&pixels, &steps).unwrap();
        normalize_images(&pixels, mean, std, DType::F32).unwrap()
    });
    let normalizer = Normalizer::new(mean, std);
    for (i, view) in finished(&squares).iter().enumerate() {
        let got: Vec<f32> = got.get(i).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let mut expected = vec![0.0; got.len()];
        normalizer.apply(view, Fidelity::Exact, &mut expected).unwrap();
        assert!(got.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()), "image {i}");
    }
}

/// Images that differ from each other.
struct Photos;

impl Source for Photos {
    fn len(&self) -> u64 {
        24
    }

    fn read(&self, sample_index: u64) -> Result<EncodedSample, IngestError> {
        let key = SampleKey { shard: "memory".into(), name: sample_index.to_string() };
        let (width, height) = (40, 40);
        let pixels = square(width, sample_index).into_pixels();
        Ok(EncodedSample { key, sample_index, payload: Payload::Rgb { width, height, pixels } })
    }

    fn label(&self, _: u64) -> Result<Option<u32>, IngestError> {
        Ok(None)
    }

    fn n_classes(&self) -> Option<u32> {
        None
    }
}

/// The swap of the trainer's stage: nothing of what it is fed with changes.
#[test]
fn the_trainer_is_fed_with_the_same_bits() {
    let source: Arc<dyn Source> = Arc::new(Photos);
    let config = RecipeConfig { image_size: 24, crop_scale: (0.2, 1.0), kind: RecipeKind::V2 };
    let batches = |finish_on| -> Vec<Vec<f32>> {
        let input = InputPlan {
            image_size: 24,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            exif: Exif::Ignore,
            pairing: Pairing::Shuffled,
            finish_on,
        };
        let workers = WorkerPlan { readers: 1, decoders: 2 };
        let stages = ViewStages { input, workers, placement: Placement::cpu() };
        let sampler = Sampler::new(Seed(5), source.len(), 8).unwrap();
        let order = TrainingOrder { sampler, position: 0, seed: Seed(5), batch_size: 8 };
        let recipe = Arc::new(Recipe::new(config).unwrap());
        let mut batches = stages.training(&source, recipe, &order, OnBadSample::Fail).unwrap();
        let batches = (0..6).flat_map(|_| batches.recv().unwrap().unwrap().views);
        batches.map(|view| view.flatten_all().unwrap().to_vec1().unwrap()).collect()
    };
    let expected = batches(FinishOn::Cpu);
    let (got, kernels) = emulate(|| batches(FinishOn::Gpu));
    assert!(got == expected);
    assert!(kernels.iter().any(|kernel| kernel == "image_columns"), "{kernels:?}");
}
