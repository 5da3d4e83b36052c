//! Recipes: order, probabilities and ranges of what they draw, and that a view is draw, then apply.

use moco_augment::{
    AugmentError, Augmentation, CropBox, DrawnView, Fidelity, Frame, Recipe, RecipeConfig,
    RecipeKind, RgbImage, Step,
};
use moco_rng::{At, Purpose, Seed, Stream};

const N_VIEWS: u64 = 20_000;

fn recipe(kind: RecipeKind) -> Recipe {
    Recipe::new(RecipeConfig { image_size: 32, crop_scale: (0.2, 1.0), kind }).unwrap()
}

fn stream(index: u64) -> Stream {
    Seed(11).stream(Purpose::Augment, At { epoch: 0, index, view: 0 })
}

fn draws(kind: RecipeKind) -> Vec<DrawnView> {
    let recipe = recipe(kind);
    (0..N_VIEWS).map(|index| recipe.draw(48, 40, stream(index))).collect()
}

fn name(step: &Step) -> &'static str {
    match step {
        Step::Jitter(_) => "jitter",
        Step::Grayscale => "gray",
        Step::Blur { .. } => "blur",
        Step::Flip => "flip",
    }
}

fn image(width: u32, height: u32) -> RgbImage {
    let pixels = (0..3 * width * height).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8);
    RgbImage::new(width, height, pixels.collect()).unwrap()
}

#[test]
fn steps_come_in_the_papers_order_with_the_papers_probabilities() {
    let cases: [(RecipeKind, &[(&str, f64)]); 5] = [
        (RecipeKind::V1, &[("gray", 0.2), ("jitter", 1.0), ("flip", 0.5)]),
        (RecipeKind::V2, &[("jitter", 0.8), ("gray", 0.2), ("blur", 0.5), ("flip", 0.5)]),
        (RecipeKind::Cifar, &[("flip", 0.5), ("jitter", 0.8), ("gray", 0.2)]),
        (RecipeKind::LinearTrain, &[("flip", 0.5)]),
        (RecipeKind::Eval { resize: 36 }, &[]),
    ];
    for (kind, expected) in cases {
        let order: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
        let draws = draws(kind);
        for draw in &draws {
            let steps: Vec<&str> = draw.steps.iter().map(name).collect();
            let in_order: Vec<&str> =
                order.iter().copied().filter(|name| steps.contains(name)).collect();
            assert_eq!(steps, in_order, "{kind:?}");
        }
        for (step, probability) in expected {
            let hits =
                draws.iter().filter(|draw| draw.steps.iter().any(|s| name(s) == *step)).count();
            let share = hits as f64 / N_VIEWS as f64;
            // Four standard deviations of a share of 20,000 are at most 0.0142.
            assert!((share - probability).abs() < 0.0142, "{kind:?}: {step} in {share}");
        }
    }
}

#[test]
fn steps_are_drawn_independently() {
    let draws = draws(RecipeKind::V2);
    let share = |wanted: &[&str]| {
        let has_all =
            |draw: &&DrawnView| wanted.iter().all(|w| draw.steps.iter().any(|s| name(s) == *w));
        draws.iter().filter(has_all).count() as f64 / N_VIEWS as f64
    };
    assert!((share(&["jitter", "gray"]) - 0.16).abs() < 0.0142);
    assert!((share(&["blur", "flip"]) - 0.25).abs() < 0.0142);
    assert!((share(&["gray", "flip"]) - 0.10).abs() < 0.0142);
}

#[test]
fn parameters_fill_the_papers_ranges() {
    let check = |kind, name: &str, get: &dyn Fn(&Step) -> Option<f64>, low: f64, high: f64| {
        let values: Vec<f64> =
            draws(kind).iter().flat_map(|d| d.steps.iter().filter_map(get)).collect();
        let (least, greatest) =
            values.iter().fold((high, low), |(least, greatest), v| (v.min(least), v.max(greatest)));
        let slack = 0.01 * (high - low);
        assert!(least >= low && least < low + slack, "{kind:?} {name}: from {least}");
        assert!(greatest <= high && greatest > high - slack, "{kind:?} {name}: to {greatest}");
    };
    let sigma = |step: &Step| if let Step::Blur { sigma } = step { Some(*sigma) } else { None };
    let hue = |step: &Step| if let Step::Jitter(draw) = step { Some(draw.hue) } else { None };
    let contrast =
        |step: &Step| if let Step::Jitter(draw) = step { Some(draw.contrast) } else { None };
    check(RecipeKind::V2, "sigma", &sigma, 0.1, 2.0);
    check(RecipeKind::V2, "hue", &hue, -0.1, 0.1);
    check(RecipeKind::Cifar, "hue", &hue, -0.1, 0.1);
    check(RecipeKind::V1, "hue", &hue, -0.4, 0.4);
    check(RecipeKind::V2, "contrast", &contrast, 0.6, 1.4);
}

#[test]
fn a_view_is_draw_then_apply_and_depends_on_the_stream_alone() {
    let source = image(48, 40);
    for kind in [RecipeKind::V1, RecipeKind::V2, RecipeKind::Cifar, RecipeKind::LinearTrain] {
        let recipe = recipe(kind);
        let view = recipe.view(&source, stream(5)).unwrap();
        assert_eq!((view.width(), view.height()), (recipe.image_size(), 32));
        assert_eq!(view, recipe.draw(48, 40, stream(5)).apply(&source).unwrap());
        assert_ne!(view, recipe.view(&source, stream(6)).unwrap(), "{kind:?}");
    }
}

#[test]
fn a_square_is_the_drawn_frame_and_leaves_the_drawn_steps() {
    let source = image(48, 40);
    let mut n_steps = 0;
    for kind in [RecipeKind::V1, RecipeKind::V2, RecipeKind::Cifar, RecipeKind::LinearTrain] {
        let recipe = recipe(kind);
        for index in 0..10 {
            let drawn = recipe.draw(48, 40, stream(index));
            let square = recipe.square(&source, stream(index)).unwrap();
            assert_eq!(square.image, drawn.frame.apply(&source, 32).unwrap());
            assert_eq!(square.steps, drawn.steps);
            n_steps += square.steps.len();
            let view = recipe.view(&source, stream(index)).unwrap();
            assert_eq!(square.finish(Fidelity::Exact), view);
        }
    }
    assert!(n_steps > 40, "{n_steps}");
}

/// Of an augmentation that knows no steps for a GPU.
struct Inverted;

impl Augmentation for Inverted {
    fn view(&self, image: &RgbImage, _: Stream) -> Result<RgbImage, AugmentError> {
        let pixels = image.pixels().iter().map(|sample| 255 - sample).collect();
        RgbImage::new(image.width(), image.height(), pixels)
    }

    fn image_size(&self) -> u32 {
        2
    }
}

#[test]
fn the_squares_of_other_augmentations_are_their_views() {
    let file = b"\x89PNG\r\n\x1a\n";
    assert!(matches!(
        Inverted.squares(file, vec![stream(0)]),
        Err(AugmentError::Damaged { .. } | AugmentError::Truncated { .. })
    ));
    let source = RgbImage::new(1, 1, vec![0, 100, 255]).unwrap();
    let square = Inverted.square(&source, stream(0)).unwrap();
    assert_eq!(square.steps, []);
    assert_eq!(square.image.pixels(), [255, 155, 0]);
}

#[test]
fn applying_runs_each_step_in_the_order_listed() {
    let source = image(48, 40);
    let crop = CropBox { top: 3, left: 5, height: 30, width: 28 };
    let drawn = DrawnView {
        source: (48, 40),
        image_size: 16,
        frame: Frame::ResizedCrop(crop),
        steps: vec![Step::Blur { sigma: 1.2 }, Step::Grayscale, Step::Flip],
    };
    let mut expected = drawn.frame.apply(&source, 16).unwrap();
    for step in [Step::Blur { sigma: 1.2 }, Step::Grayscale, Step::Flip] {
        let before = expected.clone();
        step.apply(&mut expected);
        assert_ne!(expected, before, "{step:?}");
    }
    assert_eq!(drawn.apply(&source).unwrap(), expected);
}

#[test]
fn evaluation_ignores_the_stream() {
    let (recipe, source) = (recipe(RecipeKind::Eval { resize: 36 }), image(48, 40));
    let view = recipe.view(&source, stream(1)).unwrap();
    assert_eq!(view, recipe.view(&source, stream(2)).unwrap());
    assert_eq!((view.width(), view.height()), (32, 32));
}

#[test]
fn a_view_drawn_for_another_size_is_refused() {
    let drawn = recipe(RecipeKind::V2).draw(48, 40, stream(0));
    assert_eq!(
        drawn.apply(&image(40, 48)).unwrap_err().to_string(),
        "a view drawn for a 48x40 image was applied to a 40x48 image"
    );
}

#[test]
fn numbers_out_of_range_are_named() {
    let good = RecipeConfig { image_size: 32, crop_scale: (0.2, 1.0), kind: RecipeKind::V2 };
    let message = |config| Recipe::new(config).unwrap_err().to_string();
    assert_eq!(
        message(RecipeConfig { image_size: 0, ..good }),
        "recipe: image_size must be from 1 to 20000, got 0"
    );
    assert_eq!(
        message(RecipeConfig { kind: RecipeKind::Eval { resize: 20_001 }, ..good }),
        "recipe: resize must be from 1 to 20000, got 20001"
    );
    for crop_scale in [(0.0, 1.0), (0.5, 0.4), (0.2, 1.1), (f64::NAN, 1.0), (0.2, f64::NAN)] {
        let error = Recipe::new(RecipeConfig { crop_scale, ..good }).unwrap_err();
        assert!(matches!(error, AugmentError::Recipe { key: "crop_scale", .. }), "{error}");
    }
    let scale_is_unused =
        RecipeConfig { crop_scale: (0.0, 0.0), kind: RecipeKind::Eval { resize: 40 }, ..good };
    assert_eq!(Recipe::new(scale_is_unused).unwrap().config(), &scale_is_unused);
}
