//! Steps through the files give the bits of the same steps within the program.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use candle_core::{DType, Device, Tensor};
use moco::{Batch, Moco, Shuffle};
use moco_rng::{At, Purpose, Seed};

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/pretrain/default.toml");
const SETS: [&str; 3] = ["encoder.width=0.0625", "moco.queue_size=20", "moco.dim=8"];
const N: usize = 8;

fn images(index: u64) -> Tensor {
    let mut stream = Seed(2).stream(Purpose::Augment, At::index(index));
    let numbers: Vec<f64> = (0..N * 3 * 64).map(|_| stream.normal()).collect();
    Tensor::from_vec(numbers, (N, 3, 8, 8), &Device::Cpu).unwrap()
}

fn model(dtype: DType) -> Moco {
    let sets = SETS.map(String::from);
    let plan = moco_config::load_pretrain(Path::new(CONFIG), &sets).unwrap().plan;
    let encoder = plan.encoder.build(Seed(5), dtype, &Device::Cpu).unwrap();
    Moco::new(encoder, plan.head, plan.moco, plan.optimizer, Seed(5)).unwrap()
}

fn step(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_step"));
    command.current_dir(folder).args(["--config", CONFIG]);
    for set in SETS {
        command.args(["--set", set]);
    }
    command.args(["--input", "in.safetensors", "--output", "out.safetensors"]);
    command.args(arguments).output().unwrap()
}

fn numbers(x: &Tensor) -> Vec<f64> {
    x.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

#[test]
fn two_steps_through_files_are_two_steps_within() {
    for dtype in [DType::F32, DType::F64] {
        let folder = tempfile::tempdir().unwrap();
        let mut moco = model(dtype);
        let mut input = BTreeMap::new();
        for (name, tensor) in moco.state().unwrap() {
            // A first step needs neither momentum buffers nor counts.
            if !name.starts_with("sgd.") && !name.ends_with("num_batches_tracked") {
                input.insert(name, tensor.copy().unwrap());
            }
        }
        let order = [3_u32, 1, 0, 2, 7, 6, 5, 4];
        for i in 0..2_u64 {
            let view = |k| images(2 * i + k).to_dtype(dtype).unwrap();
            input.insert(format!("step{i}.im_q"), view(0));
            input.insert(format!("step{i}.im_k"), view(1));
            input.insert(
                format!("step{i}.lr"),
                Tensor::new(&[0.1 / (i + 1) as f64], &Device::Cpu).unwrap(),
            );
            input.insert(format!("step{i}.shuffle"), Tensor::new(&order, &Device::Cpu).unwrap());
        }
        safetensors::serialize_to_file(&input, None, &folder.path().join("in.safetensors"))
            .unwrap();
        let output = step(folder.path(), &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let file = folder.path().join("out.safetensors");
        let results = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
        for i in 0..2_u64 {
            let views = Batch {
                im_q: input[&format!("step{i}.im_q")].clone(),
                im_k: input[&format!("step{i}.im_k")].clone(),
                sample_indices: Vec::new(),
            };
            let shuffle = || Shuffle::new(&order).unwrap();
            let expected =
                moco.step_shuffled(&views, &[shuffle(), shuffle()], 0.1 / (i + 1) as f64).unwrap();
            assert_eq!(
                numbers(&results[&format!("step{i}.loss")]),
                [expected.statistics.read().unwrap().loss]
            );
            for (name, directions) in [("q", &expected.q), ("k", &expected.k)] {
                let joined = Tensor::cat(directions, 0).unwrap();
                assert_eq!(numbers(&results[&format!("step{i}.{name}")]), numbers(&joined));
            }
            assert!(expected.gradients.len() > 20);
            for (name, gradient) in &expected.gradients {
                let got = &results[&format!("step{i}.grad.{name}")];
                assert_eq!(numbers(got), numbers(gradient), "step {i}, {name}");
            }
        }
        for (name, tensor) in moco.state().unwrap() {
            assert_eq!(numbers(&results[&name]), numbers(&tensor), "{name}");
        }
    }
}

/// Faults of an input file, and the whole error.
#[test]
fn a_file_that_does_not_fit_is_refused_by_name() {
    let good: BTreeMap<String, Tensor> = {
        let mut input: BTreeMap<String, Tensor> =
            model(DType::F32).state().unwrap().into_iter().collect();
        for (name, view) in [("im_q", 0), ("im_k", 1)] {
            input.insert(format!("step0.{name}"), images(view).to_dtype(DType::F32).unwrap());
        }
        input.insert("step0.lr".into(), Tensor::new(&[0.1_f64], &Device::Cpu).unwrap());
        input
    };
    let with = |name: &str, tensor: Tensor| {
        let mut input = good.clone();
        input.insert(name.to_owned(), tensor);
        input
    };
    let without = |name: &str| {
        let mut input = good.clone();
        input.remove(name);
        input
    };
    let indices = |order: &[u32]| Tensor::new(order, &Device::Cpu).unwrap();
    let numbers = |numbers: &[f32]| Tensor::new(numbers, &Device::Cpu).unwrap();
    for (input, exit, expected) in [
        (without("step0.im_k"), 3, "error: in.safetensors: lacks tensor `step0.im_k`"),
        (without("step0.lr"), 3, "error: in.safetensors: lacks tensor `step0.lr`"),
        (
            with("step0.lr", numbers(&[0.1, 0.2])),
            3,
            "error: in.safetensors: step0.lr has 2 numbers, expected 1",
        ),
        (
            with("step0.shuffle", indices(&[0, 1, 2])),
            3,
            "error: in.safetensors: step0.shuffle has 3 indices, expected 8",
        ),
        (
            with("step0.shuffle", indices(&[0, 0, 1, 2, 3, 4, 5, 6])),
            3,
            "error: in.safetensors: step0.shuffle: index 0 occurs twice in the permutation",
        ),
        (
            with("queue_ptr", Tensor::new(&[20_i64], &Device::Cpu).unwrap()),
            1,
            "error: in.safetensors\n  cause: queue_ptr is 20, but the queue has columns 0 to 19",
        ),
        (
            with("encoder_q.extra", numbers(&[1.0])),
            1,
            "error: in.safetensors\n  cause: the state holds `encoder_q.extra`, which this model does not have",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("in.safetensors");
        safetensors::serialize_to_file(&input, None, &file).unwrap();
        let output = step(folder.path(), &[]);
        assert_eq!(String::from_utf8_lossy(&output.stderr).trim_end(), expected);
        assert_eq!(output.status.code(), Some(exit), "{expected}");
    }
}
