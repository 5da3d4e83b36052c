//! The file holds the features of every labeled image, in order, with its label.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

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
    let rows = tensors["test.features"].to_vec2::<f32>().unwrap();
    assert!(rows.iter().flatten().all(|x| x.is_finite() && *x >= 0.0), "after the last ReLU");
    assert!(rows.windows(2).all(|pair| pair[0] != pair[1]), "each image has features of its own");
}
