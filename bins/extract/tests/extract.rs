//! The file holds the features of every labeled image, in order, with its label.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/old_run.rs"]
mod old_run;
#[path = "../../../tests/small_run.rs"]
mod small_run;

use std::process::Command;

use candle_core::Device;

#[test]
fn features_and_labels_are_written() {
    let root = tempfile::tempdir().unwrap();
    small_run::small_run(root.path(), &["encoder.width=0.0625"]);
    let output = Command::new(env!("CARGO_BIN_EXE_extract"))
        .current_dir(root.path())
        .args(["runs/small", "--out", "features.safetensors"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = root.path().join("features.safetensors");
    let tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    // ResNet-10 at width 1/16 ends with 512/16 channels.
    assert_eq!(tensors["train.features"].dims(), [160, 32]);
    assert_eq!(tensors["test.features"].dims(), [80, 32]);
    let labels = tensors["test.labels"].to_vec1::<u32>().unwrap();
    assert_eq!(labels, (0..80).map(|i| i % 16).collect::<Vec<u32>>());
    let indices = tensors["test.sample_indices"].to_vec1::<i64>().unwrap();
    assert_eq!(indices, (0..80).collect::<Vec<i64>>());
    let rows = tensors["test.features"].to_vec2::<f32>().unwrap();
    assert!(rows.iter().flatten().all(|x| x.is_finite() && *x >= 0.0), "after the last ReLU");
    assert!(rows.windows(2).all(|pair| pair[0] != pair[1]), "each image has features of its own");
}

/// An older revision's features of its own run.
#[test]
fn features_of_a_run_without_a_format_are_those_of_its_own_program() {
    let root = tempfile::tempdir().unwrap();
    old_run::old_run(root.path(), 3);
    let output = Command::new(env!("CARGO_BIN_EXE_extract"))
        .current_dir(root.path())
        .args(["runs/old", "--out", "features.safetensors"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let [got, expected] = [root.path().to_owned(), old_run::golden()].map(|folder| {
        candle_core::safetensors::load(folder.join("features.safetensors"), &Device::Cpu).unwrap()
    });
    let numbers = |tensor: &candle_core::Tensor| -> Vec<f64> {
        let tensor = tensor.to_dtype(candle_core::DType::F64).unwrap();
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    };
    let names = ["train.features", "train.labels", "test.features", "test.labels"];
    // Programs of today also write the images' numbers.
    assert_eq!((got.len(), expected.len()), (names.len() + 2, names.len()));
    for name in names {
        assert_eq!(got[name].dims(), expected[name].dims(), "{name}");
        for (a, b) in numbers(&got[name]).into_iter().zip(numbers(&expected[name])) {
            // Another instruction set rounds sums in another order.
            let tolerance =
                if old_run::has_the_same_bits() { 0.0 } else { 1e-6 * b.abs().max(1.0) };
            assert!((a - b).abs() <= tolerance, "{name}: {a} instead of {b}");
        }
    }
}
