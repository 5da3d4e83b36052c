//! The dump against the trainer's feed and against its own numbers, the picture, and what users get wrong.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use candle_core::{DType, Device, IndexOp as _, Tensor};
use moco_augment::{CropBox, DrawnView, Frame, JitterDraw, JitterOp, Normalizer, RgbImage, Step};
use moco_config::{LoadedPretrain, load_pretrain};
use moco_feed::Placement;
use moco_rng::Seed;
use moco_textures::TexturesConfig;
use serde_json::Value;

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/pretrain/default.toml");
/// Two steps an epoch.
const N_TRAIN: u32 = 160;

/// Writes images below `root` and gives the settings that name them.
fn data(root: &Path) -> Vec<String> {
    let textures = TexturesConfig { seed: Seed(0), n_train: N_TRAIN, n_test: 16, n_workers: 2 };
    moco_textures::write(root, &textures, &mut |_, _| ()).unwrap();
    let manifest = root.join("manifest.toml").display().to_string();
    vec![
        format!("data.root={:?}", root.display().to_string()),
        format!("data.manifest={manifest:?}"),
    ]
}

/// Exit code, standard output and standard error.
fn preview(root: &Path, sets: &[String], args: &str) -> (Option<i32>, String, String) {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let output = Command::new(env!("CARGO_BIN_EXE_preview"))
        .current_dir(root)
        .arg(CONFIG)
        .args(sets)
        .args(args.split_whitespace())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

struct Dump {
    tensors: BTreeMap<String, RgbImage>,
    numbers: Value,
}

impl Dump {
    fn read(root: &Path) -> Self {
        let bytes = std::fs::read(root.join("dump.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let image = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
            let [height, width, 3] = *view.shape() else { panic!("{name}: {:?}", view.shape()) };
            assert_eq!(view.dtype(), safetensors::Dtype::U8);
            let [width, height] = [width, height].map(|side| u32::try_from(side).unwrap());
            (name, RgbImage::new(width, height, view.data().to_vec()).unwrap())
        };
        let text = std::fs::read_to_string(root.join("dump.json")).unwrap();
        Self {
            tensors: file.tensors().into_iter().map(image).collect(),
            numbers: serde_json::from_str(&text).unwrap(),
        }
    }

    fn views(&self) -> &Vec<Value> {
        self.numbers["views"].as_array().unwrap()
    }

    fn tensor(&self, name: &Value) -> &RgbImage {
        &self.tensors[name.as_str().unwrap()]
    }
}

/// The view that the numbers of the JSON describe.
fn described(entry: &Value, image: &RgbImage) -> DrawnView {
    let side = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    let frame = &entry["frame"];
    assert_eq!(frame["kind"], "resized_crop");
    let [top, left, height, width] = ["top", "left", "height", "width"].map(|k| side(&frame[k]));
    let step = |step: &Value| match step["kind"].as_str().unwrap() {
        "jitter" => {
            let op = |i: usize| match step["order"][i].as_str().unwrap() {
                "brightness" => JitterOp::Brightness,
                "contrast" => JitterOp::Contrast,
                "saturation" => JitterOp::Saturation,
                "hue" => JitterOp::Hue,
                other => panic!("{other}"),
            };
            let factor = |key: &str| step[key].as_f64().unwrap();
            Step::Jitter(JitterDraw {
                order: [0, 1, 2, 3].map(op),
                brightness: factor("brightness"),
                contrast: factor("contrast"),
                saturation: factor("saturation"),
                hue: factor("hue"),
            })
        }
        "grayscale" => Step::Grayscale,
        "blur" => Step::Blur { sigma: step["sigma"].as_f64().unwrap() },
        "flip" => Step::Flip,
        other => panic!("{other}"),
    };
    DrawnView {
        source: (image.width(), image.height()),
        image_size: side(&entry["image_size"]),
        frame: Frame::ResizedCrop(CropBox { top, left, height, width }),
        steps: entry["steps"].as_array().unwrap().iter().map(step).collect(),
    }
}

/// What the trainer's feed delivers first from `step` on, and the samples' indices.
fn feed(loaded: &LoadedPretrain, step: u64) -> (Vec<Tensor>, Vec<u64>) {
    let plan = &loaded.plan;
    let components = moco_cli::components(loaded, &Device::Cpu).unwrap();
    let source = &components.sources.train;
    let order = plan.training_order(source.as_ref()).unwrap().after_steps(step);
    let stages = plan.view_stages(Placement::cpu());
    let augmentation = Arc::clone(&components.augmentation);
    let mut batches = stages.training(source, augmentation, &order, plan.on_bad_sample).unwrap();
    let batch = batches.recv().unwrap().unwrap();
    (batch.views, batch.sample_indices)
}

/// u8 to f32 as the upload does it, `[3, H, W]`.
fn normalized(image: &RgbImage, loaded: &LoadedPretrain) -> Vec<u32> {
    let normalizer = Normalizer::new(loaded.plan.input.mean, loaded.plan.input.std);
    let mut numbers = vec![0.0; image.pixels().len()];
    normalizer.apply(image, moco_augment::Fidelity::Exact, &mut numbers).unwrap();
    numbers.into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_dump_holds_what_the_trainer_gets_and_the_numbers_that_make_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    for (recipe, pairing) in [("v1", "same_image"), ("v2", "same_image"), ("cifar", "shuffled")] {
        let more = [format!("augment.recipe={recipe:?}"), format!("augment.pairing={pairing:?}")];
        let sets = [data.as_slice(), &more].concat();
        let loaded = load_pretrain(Path::new(CONFIG), &sets).unwrap();
        // The fourth step is in the second epoch, and its last place is paired with its first.
        let places = "--step 3 --index 63 --index 0 --index 17 --index 30";
        let args = format!("{places} --draws 2 --dump dump.safetensors");
        let (code, stdout, stderr) = preview(folder.path(), &sets, &args);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
        assert!(stdout.starts_with("step 3, index 63: image "), "{stdout}");

        let dump = Dump::read(folder.path());
        let (batch, sample_indices) = feed(&loaded, 3);
        assert_eq!(dump.views().len(), 4 * 2 * 2);
        let mut n_compared = 0;
        for entry in dump.views() {
            let (view, image) = (dump.tensor(&entry["tensor"]), dump.tensor(&entry["image"]));
            assert_eq!(&described(entry, image).apply(image).unwrap(), view, "{entry}");
            let at = |key: &str| usize::try_from(entry[key].as_u64().unwrap()).unwrap();
            if at("draw") > 0 {
                assert_eq!(at("epoch"), 2);
                continue;
            }
            assert_eq!((at("step"), at("epoch")), (3, 1));
            let in_batch = batch[at("view")].i(at("index")).unwrap().flatten_all().unwrap();
            let in_batch: Vec<f32> = in_batch.to_dtype(DType::F32).unwrap().to_vec1().unwrap();
            let bits: Vec<u32> = in_batch.into_iter().map(f32::to_bits).collect();
            assert!(bits == normalized(view, &loaded), "{recipe}: {entry}");
            let is_of = |place: usize| entry["image"] == format!("image.{}", sample_indices[place]);
            let shift = usize::from(pairing == "shuffled" && at("view") == 1);
            assert!(is_of((at("index") + shift) % 64), "{entry}");
            n_compared += 1;
        }
        assert_eq!(n_compared, 4 * 2);
    }
}

#[test]
fn a_substitute_is_shown_as_the_trainer_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut sets = data(folder.path());
    let shard = folder.path().join("train-000000.tar");
    let mut bytes = std::fs::read(&shard).unwrap();
    // The body of the first image, after its 512-byte header, no longer starts like a JPEG.
    bytes[512..516].copy_from_slice(b"none");
    std::fs::write(shard, bytes).unwrap();
    sets.push("data.verify=\"sizes\"".into());
    let place_of_it = |loaded: &LoadedPretrain| {
        let source = moco_cli::sources(loaded).unwrap().train;
        let sampler = loaded.plan.training_order(source.as_ref()).unwrap().sampler;
        sampler.slots_from(0).position(|slot| slot.sample_index == 0).unwrap() as u64
    };
    let position = place_of_it(&load_pretrain(Path::new(CONFIG), &sets).unwrap());
    let (step, index) = (position / 64, position % 64);
    let args = format!("--step {step} --index {index} --dump dump.safetensors");
    let (code, _, stderr) = preview(folder.path(), &sets, &args);
    assert_eq!(code, Some(3));
    assert!(stderr.starts_with("error: image train-000000.tar/000000: "), "{stderr}");

    sets.extend(["data.on_bad_sample=\"skip\"", "data.bad_sample_budget=9"].map(str::to_owned));
    let loaded = load_pretrain(Path::new(CONFIG), &sets).unwrap();
    let (code, stdout, stderr) = preview(folder.path(), &sets, &args);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let expected = "  stands in for image train-000000.tar/000000: image is no JPEG, PNG, WebP, BMP, TIFF or GIF";
    assert!(stdout.lines().nth(1).unwrap().starts_with(expected), "{stdout}");
    let (dump, (batch, sample_indices)) = (Dump::read(folder.path()), feed(&loaded, step));
    let index = usize::try_from(index).unwrap();
    for (entry, view) in dump.views().iter().zip(batch) {
        assert_eq!(entry["image"], format!("image.{}", sample_indices[index]));
        let in_batch = view.i(index).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let bits: Vec<u32> = in_batch.into_iter().map(f32::to_bits).collect();
        assert!(bits == normalized(dump.tensor(&entry["tensor"]), &loaded), "{entry}");
    }
    assert_eq!(dump.views().len(), 2);
}

#[test]
fn a_number_of_the_dump_that_is_off_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let sets = [data(folder.path()), vec!["augment.recipe=\"v2\"".into()]].concat();
    let (code, _, stderr) = preview(folder.path(), &sets, "--images 12 --dump dump.safetensors");
    assert_eq!(code, Some(0), "{stderr}");
    let dump = Dump::read(folder.path());
    let blurred = dump.views().iter().find(|entry| {
        entry["steps"].as_array().unwrap().iter().any(|step| step["sigma"].as_f64() > Some(1.0))
    });
    let entry = blurred.unwrap();
    let image = dump.tensor(&entry["image"]);
    let mut other = described(entry, image);
    for step in &mut other.steps {
        if let Step::Blur { sigma } = step {
            *sigma *= 1.01;
        }
    }
    assert_ne!(&other.apply(image).unwrap(), dump.tensor(&entry["tensor"]));
}

#[test]
fn the_picture_has_a_row_an_image_and_frames_in_two_colors() {
    let folder = tempfile::tempdir().unwrap();
    let sets = data(folder.path());
    let (code, stdout, stderr) = preview(folder.path(), &sets, "--images 3 --draws 2 --out a.png");
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.ends_with("written to a.png\n"), "{stdout}");
    let picture = image::open(folder.path().join("a.png")).unwrap().into_rgb8();
    // Views of 32 pixels are enlarged 4 times and framed with 3 pixels; images of 48 are cut down to the
    // same 134; 14 lie around everything and 6 between the views of a draw.
    let cell = 4 * 32 + 6;
    assert_eq!(
        picture.dimensions(),
        (14 + cell + 2 * (14 + 2 * cell + 6) + 14, 14 + 3 * (cell + 14))
    );
    let dump = format!("{sets:?}");
    for (row, top) in (14..).step_by(cell as usize + 14).take(3).enumerate() {
        let left = 14 + cell + 14;
        assert_eq!(picture.get_pixel(left, top).0, [230, 120, 20], "{row} {dump}");
        assert_eq!(picture.get_pixel(left + cell + 6, top + 80).0, [30, 110, 200], "{row} {dump}");
    }
}

#[test]
fn mistakes_are_told_with_their_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let sets = data(folder.path());
    let cases = [
        ("--index 64", 2, "error: --index 64 is past the batch: it has places 0 to 63"),
        ("--step 18446744073709551615", 2, "error: --step 18446744073709551615: no run is that"),
        (
            "--dump a.json",
            2,
            "error: --dump names the file of tensors, and the JSON file is written",
        ),
        ("--images 1000 --draws 100", 2, "error: a picture of 3609156000 pixels is too large, the"),
        ("--index 1 --images 2", 2, "cannot be used with"),
        ("--set moco.temprature=1", 2, "temperature"),
        ("--out missing/a.png", 3, "error: cannot write missing/a.png: No such file"),
        ("--set data.manifest=\"none.toml\"", 3, "no manifest at none.toml"),
    ];
    for (args, expected_code, expected) in cases {
        let (code, _, stderr) = preview(folder.path(), &sets, args);
        assert_eq!(code, Some(expected_code), "{args}: {stderr}");
        assert!(stderr.contains(expected), "{args}: {stderr}");
    }
    let (code, stdout, _) = preview(folder.path(), &sets, "--step 1000000007 --images 1");
    assert_eq!(code, Some(0), "the order of samples has no end");
    assert!(stdout.contains("epoch 500000003, query"), "{stdout}");
}
