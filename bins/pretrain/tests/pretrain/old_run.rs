//! A run of an older revision continues as that revision continued it.

use std::path::Path;

use moco_checkpoint::{Checkpoint, CheckpointDir};

use crate::common::{Bench, text};
use crate::old::{golden, has_the_same_bits, old_run};

/// Of a number, or of 1 if that is more: another instruction set rounds sums in another order.
const TOLERANCE: f64 = 1e-6;

const LAST: &str = "checkpoints/step-0000000003.safetensors";

/// The numbers of a tensor; an integer, which the queue's pointer is, must be equal in its bytes.
fn numbers(dtype: &str, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        "F32" => {
            let each = bytes.as_chunks().0.iter();
            each.map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()
        }
        _ => bytes.iter().map(|byte| f64::from(*byte)).collect(),
    }
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= TOLERANCE * b.abs().max(1.0)
}

/// The lines of the steps.
fn steps(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["loss"].is_number()).collect()
}

#[test]
fn a_run_without_a_format_takes_the_step_that_its_own_program_took() {
    let bench = Bench::empty();
    old_run(bench.folder.path(), 2);
    let (run, old) = (bench.path("runs/old"), golden().join("run"));
    // A copy of the fixture does not show the third step by itself.
    std::fs::remove_file(run.join("summary.json")).unwrap();
    assert!(!run.join(LAST).exists());
    let output = bench.run(&["--resume", "old"]);
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let id = std::fs::read_to_string(run.join("run_id")).unwrap();
    for line in [
        format!("run id {}, new: the run is from before runs had one\n", id.trim_end()),
        "data   not compared: the checkpoint is from before runs had a digest of their data; \
         the next one has it\n"
            .to_owned(),
    ] {
        assert!(stderr.contains(&line), "{stderr}");
    }

    let load = |run: &Path| CheckpointDir::load(&run.join(LAST)).unwrap();
    let [got, expected]: [Checkpoint; 2] = [&run, &old].map(|run| load(run));
    assert_eq!((got.global_step, expected.global_step), (3, 3));
    assert_eq!(got.metadata["format"], "3");
    assert_eq!(got.metadata["run_id"], id.trim_end());
    assert!(got.metadata["train_data"].contains("1 shard of "));
    assert_eq!(got.metadata["config"], expected.metadata["config"]);
    let (got, expected) = (got.tensors().unwrap(), expected.tensors().unwrap());
    assert_eq!(got.len(), expected.len());
    for (name, expected) in expected.iter() {
        let got = got.tensor(name).unwrap();
        assert_eq!((got.dtype(), got.shape()), (expected.dtype(), expected.shape()), "{name}");
        let dtype = format!("{:?}", got.dtype());
        let numbers = |bytes| numbers(&dtype, bytes);
        for (a, b) in numbers(got.data()).into_iter().zip(numbers(expected.data())) {
            assert!(near(a, b), "{name}: {a} instead of {b}");
        }
        assert!(!has_the_same_bits() || got.data() == expected.data(), "{name}: other bits");
    }

    let (lines, old_lines) = (steps(&run), steps(&old));
    let of = |lines: &[serde_json::Value]| -> Vec<u64> {
        lines.iter().map(|line| line["step"].as_u64().unwrap()).collect()
    };
    assert_eq!((of(&lines), of(&old_lines)), (vec![1, 2, 3], vec![1, 2, 3]));
    for key in ["loss", "lr", "pretext_top1", "positive_cosine", "negative_cosine"] {
        let [got, expected] = [&lines, &old_lines].map(|lines| lines[2][key].as_f64().unwrap());
        assert!(near(got, expected), "{key}: {got} instead of {expected}");
        assert!(!has_the_same_bits() || got == expected, "{key}: {got} instead of {expected}");
    }
}

#[test]
fn a_resume_of_an_old_run_changes_no_key_that_is_younger() {
    let bench = Bench::empty();
    old_run(bench.folder.path(), 2);
    let output = bench.run(&["--resume", "old", "--set", "run.conv_backend=graph"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    let expected = "error: old was trained with run.conv_backend = \"legacy\"; \
                    --set run.conv_backend=\"graph\" would change it\n";
    assert!(stderr.starts_with(expected), "{stderr}");
}
