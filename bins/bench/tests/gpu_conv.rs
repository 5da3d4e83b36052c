//! `bench gpu-conv` on the CPU, whole, and where there is no such device.

use std::process::{Command, Output};

use serde_json::Value;

fn gpu_conv(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.arg("gpu-conv").args(arguments.split_whitespace()).output().unwrap()
}

#[test]
fn the_report_has_each_convolution_in_each_direction() {
    let output = gpu_conv("--device cpu --precision f32 --batch-size 1 --samples 1 --repeats 1");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["convolutions"].as_array().unwrap();
    assert_eq!(rows.len(), 17, "{report}");
    for row in rows {
        for number in ["ms", "tflops"] {
            assert!(row["cpu"][number].as_f64().unwrap() > 0.0, "{row}");
        }
        // A CPU has nothing to choose among.
        assert!(row["cpu"]["choice"].is_null(), "{row}");
    }
    let first = (rows[0]["name"].as_str().unwrap(), rows[0]["direction"].as_str().unwrap());
    assert_eq!(first, ("stem 7x7/2 3-64", "forward"));
}

#[test]
fn what_a_machine_does_not_have_is_told() {
    for (arguments, code, expected) in [
        ("--device cuda:99", 3, "error: cuda:99 is not available: "),
        ("--device cpu", 2, "error: --device cpu computes only in f32; add --precision f32"),
    ] {
        let output = gpu_conv(arguments);
        assert_eq!(output.status.code(), Some(code));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.starts_with(expected), "{message}");
        assert_eq!(output.stdout, b"");
    }
}
