//! `bench gpu-step` on the CPU, whole, and where there is no such device.

use std::process::{Command, Output};

use serde_json::Value;

fn gpu_step(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.arg("gpu-step").args(arguments.split_whitespace()).output().unwrap()
}

#[test]
fn the_report_has_all_numbers() {
    let output = gpu_step(
        "--device cpu --precision f32 --arch resnet18 --size 32 --batch-size 8 --queue-size 64 \
         --steps 2 --blocks 3 --warmup 1 --feed --decoders 2",
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let positive = |path: &str| {
        let number = report.pointer(path).and_then(Value::as_f64);
        let number = number.unwrap_or(f64::NAN);
        assert!(number.is_finite() && number > 0.0, "{path} in {report}");
        number
    };
    for path in [
        "/images_per_second",
        "/phases_ms/query_forward",
        "/phases_ms/key_forward",
        "/phases_ms/loss",
        "/phases_ms/backward",
        "/phases_ms/optimizer",
        "/last_loss",
        "/feed/images_per_second",
        "/feed/alone_images_per_second",
        "/feed/share",
        "/feed/busy/read",
        "/feed/busy/decode",
        "/feed/busy/batch",
        "/feed/busy/upload",
    ] {
        positive(path);
    }
    // Query and key encoder differ by one small step, the queue is noise.
    assert!(positive("/first_loss") < 65_f64.ln(), "{report}");
    let mut blocks: Vec<f64> =
        report["blocks_ms"].as_array().unwrap().iter().map(|ms| ms.as_f64().unwrap()).collect();
    assert_eq!(blocks.len(), 3);
    blocks.sort_by(f64::total_cmp);
    assert_eq!(positive("/step_ms").to_bits(), blocks[1].to_bits());
    let rate = positive("/images_per_second") * positive("/step_ms") / 1e3;
    assert!((rate - 8.0).abs() < 1e-9, "{report}");
    // The process of a CPU knows its memory; there is no device's.
    assert!(report["peak_memory_bytes"].is_null());
    for (name, expected) in [
        ("side", "ours".into()),
        ("device", "cpu".into()),
        ("precision", "f32".into()),
        ("arch", "resnet18".into()),
        ("batch_size", Value::from(8)),
        ("queue_size", Value::from(64)),
        ("bn_groups", Value::from(1)),
    ] {
        assert_eq!(report[name], expected, "{name}");
    }
}

#[test]
fn without_the_device_there_is_a_message_and_no_result() {
    let output = gpu_step("--device cuda:99");
    assert_eq!(output.status.code(), Some(3));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("error: cuda:99 is not available: "), "{message}");
    assert_eq!(output.stdout, b"");
}

#[test]
fn more_keys_than_the_queue_holds_are_told() {
    let output = gpu_step(
        "--device cpu --precision f32 --arch resnet10 --size 32 --batch-size 8 --queue-size 4",
    );
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    let expected = "8 keys a step do not fit a queue of 4; use a queue_size of at least 8";
    assert!(message.contains(expected), "{message}");
}
