//! What check.py reports of seeded faults, with made-up programs in the places of ours.

use super::check_pack::{Pack, expect};

#[test]
fn parts_without_a_fault_pass_and_are_written() {
    let pack = Pack::new("sound");
    let (code, output) = pack.check("--only items");
    assert_eq!(code, Some(0), "{output}");
    expect(&output, &["ok", "3 of 3 items", "1 ok"]);
    assert_eq!(pack.part("items")["passed"], true);
    let (code, output) = pack.check("--only step/parity");
    assert_eq!(code, Some(0), "{output}");
    expect(&output, &["1 of 1 tests"]);
}

#[test]
fn a_wrong_number_is_told_with_kernel_shape_and_place() {
    let pack = Pack::new("wrong");
    pack.items(
        r#"if [ $name = add/f32 ]; then
        echo '{"item": "add/f32", "passed": false, "error": "sum [2, 3]: 2 of 6 numbers differ by more than 2e-5; first at [0, 1]: 1 and not 2; worst at [1, 1]: 8 and not 4"}'
        continue; fi"#,
    );
    let (code, output) = pack.check("--only items");
    assert_eq!(code, Some(1), "{output}");
    let expected = "add/f32: sum [2, 3]: 2 of 6 numbers differ by more than 2e-5; first at [0, 1]: 1 and not 2; worst at [1, 1]: 8 and not 4";
    expect(&output, &["FAILED", "2 of 3 items", "\n    add/f32: sum [2, 3]: 2 of 6 numbers"]);
    assert_eq!(pack.part("items")["error"], expected);
}

#[test]
fn a_program_that_is_killed_is_named_a_fresh_one_goes_on_and_the_sanitizer_is_asked() {
    let pack = Pack::new("killed");
    pack.items("if [ $name = add/f32 ]; then kill -9 $$; fi");
    let finding = "echo '========= Invalid __global__ write of size 4 bytes'
        echo '=========     at add_f32+0x70'; exit 9";
    pack.program("compute-sanitizer", finding);
    let (code, output) = pack.check("--only items");
    assert_eq!(code, Some(1), "{output}");
    expect(&output, &["2 of 3 items", "add/f32: ended by SIGKILL"]);
    let error = pack.part("items")["error"].as_str().unwrap().to_owned();
    let expected = [
        "fresh processes continued after add/f32",
        "compute-sanitizer: Invalid __global__ write of size 4 bytes at add_f32+0x70",
    ];
    expect(&error, &expected);
    // The item after the lost one was done all the same.
    assert_eq!(pack.part("items")["details"]["items"]["sgd/f32"]["passed"], true);
}

#[test]
fn a_device_that_is_lost_is_told_with_the_item_before() {
    let pack = Pack::new("lost");
    pack.items(
        r#"if [ $name = relu/f32 ]; then
        echo '{"item": "relu/f32", "passed": false, "error": "relu: the CUDA driver: CUDA_ERROR_ILLEGAL_ADDRESS"}'
        echo 'error: the device is lost after relu/f32' >&2; exit 1; fi"#,
    );
    let (code, output) = pack.check("--only items");
    assert_eq!(code, Some(1), "{output}");
    expect(
        &output,
        &["2 of 3 items", "relu/f32: relu: the CUDA driver: CUDA_ERROR_ILLEGAL_ADDRESS"],
    );
}

#[test]
fn an_error_of_cudnn_is_told_with_what_its_log_says() {
    let pack = Pack::new("library");
    pack.tests(
        "step_parity::on_device::a",
        r#"if [ -n "$CUDNN_LOGDEST_DBG" ]; then
            echo 'W! CuDNN: x is fine' >"$CUDNN_LOGDEST_DBG"
            echo 'E! CuDNN error: CUDNN_STATUS_NOT_SUPPORTED_LAYOUT in conv' >>"$CUDNN_LOGDEST_DBG"
        fi
        echo 'test step_parity::on_device::a ... FAILED'
        echo
        echo '---- step_parity::on_device::a stdout ----'
        echo "thread 'step_parity::on_device::a' panicked at x.rs:1:2:"
        echo 'conv2d: cuDNN: CUDNN_STATUS_NOT_SUPPORTED'
        exit 101"#,
    );
    let (code, output) = pack.check("--only step/parity");
    assert_eq!(code, Some(1), "{output}");
    expect(
        &output,
        &["0 of 1 tests", "step_parity::on_device::a: conv2d: cuDNN: CUDNN_STATUS_NOT_SUPPORTED"],
    );
    let error = pack.part("step/parity")["error"].as_str().unwrap().to_owned();
    expect(&error, &["cuDNN's log: ", "CUDNN_STATUS_NOT_SUPPORTED_LAYOUT in conv"]);
}

#[test]
fn a_part_that_exceeds_its_time_is_ended_and_named() {
    let pack = Pack::new("slow");
    pack.items("if [ $name = add/f32 ]; then exec sleep 600; fi");
    let (code, output) = pack.check("--only items --bounds 0.04");
    assert_eq!(code, Some(1), "{output}");
    expect(&output, &["add/f32: not done after"]);
}

#[test]
fn nothing_is_started_that_may_not_end_in_the_time_left() {
    let pack = Pack::new("late");
    let (code, output) = pack.check("--seconds 1 --only step");
    assert_eq!(code, Some(2), "{output}");
    expect(&output, &["no time", "step/parity", "needs up to 60 s, 1 s are left", "2 no time"]);
}

#[test]
fn parts_are_chosen_by_name_and_an_unknown_one_is_answered_with_all() {
    let pack = Pack::new("chosen");
    let (code, output) = pack.check("--list --from curve/f32");
    assert_eq!(code, Some(0));
    let names: Vec<&str> =
        output.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(names, ["curve/f32", "curve/bf16", "bench/compile"]);
    for words in ["--from nothing", "--only nothing"] {
        let (code, output) = pack.check(words);
        assert_eq!(code, Some(1), "{output}");
        expect(&output, &["`nothing`; there are machine, items, "]);
    }
}

/// Both ways to cuDNN compared with PyTorch, of which one fails for one convolution.
#[test]
fn convolutions_are_added_up_by_interface_and_a_failure_is_named() {
    let pack = Pack::new("convolutions");
    let row = |ours: &str| {
        let stem = r#"{"name": "stem", "direction": "forward", "legacy": {"ms": 2.0}, "graph": {"ms": 1.0}}"#;
        format!(
            "{{\"convolutions\": [{stem}, {{\"name\": \"last\", \"direction\": \"dw\", {ours}}}]}}"
        )
    };
    let sound = row(r#""legacy": {"ms": 4.0}, "graph": {"ms": 2.5}"#);
    pack.program("bench", &format!("echo '{sound}'"));
    let torch = r#"print('{"convolutions": [{"torch": {"ms": 1.5}}, {"torch": {"ms": 2.0}}]}')"#;
    pack.script("torch_gpu_conv.py", torch);
    let (code, output) = pack.check("--only bench/convolutions");
    assert_eq!(code, Some(0), "{output}");
    expect(&output, &["legacy 6.00, graph 3.50, torch 3.50 ms in 2"]);
    let failing = row(r#""legacy": {"ms": 4.0}, "graph": {"error": "conv2d: cuDNN: no engine"}"#);
    pack.program("bench", &format!("echo '{failing}'"));
    let (code, output) = pack.check("--only bench/convolutions");
    assert_eq!(code, Some(1), "{output}");
    expect(
        &output,
        &[
            "legacy 2.00, graph 1.00, torch 1.50 ms in 1",
            "last dw by graph: conv2d: cuDNN: no engine",
        ],
    );
}

/// The table ranks kernels by their time above their floors, and stays short whatever happens.
#[test]
fn the_slowest_kernels_are_those_farthest_above_their_floors() {
    let pack = Pack::new("kernels");
    let report = r#"{"step_ms": 50.0, "phases_ms": {"backward": 30.0}, "peak_memory_bytes": 9, "kernels": [
        {"op": "a", "kernel": "bn_moments_bf16", "shape": "[1]", "calls": 53, "ms": 9.0, "bytes": 8900000000, "flops": 0},
        {"op": "b", "kernel": "Forward_bf16", "shape": "[2]", "calls": 2, "ms": 5.0, "bytes": 1, "flops": 100000000000}]}"#;
    pack.program("bench", &format!("echo '{}'", report.replace('\n', "")));
    let torch =
        r#"print('{"step_ms": 40.0, "phases_ms": {"backward": 20.0}, "peak_memory_bytes": 10}')"#;
    pack.script("torch_gpu.py", torch);
    let (code, output) = pack.check("--only machine");
    assert_eq!(code, Some(0), "{output}");
    let (code, output) = pack.check("--only bench/bf16");
    assert_eq!(code, Some(1), "{output}");
    expect(
        &output,
        &[
            "ours 50.00 ms, PyTorch 40.00 ms",
            "slower than PyTorch",
            "backward 30.00 (PyTorch 20.00)",
        ],
    );
    let (_, output) = pack.check("--seconds 300");
    let table: Vec<&str> = output.lines().skip_while(|line| !line.starts_with("part ")).collect();
    assert!(table.len() <= 60, "{output}");
    assert!(output.lines().all(|line| line.chars().count() <= 120), "{output}");
    let slow = table.iter().position(|line| line.contains("2 x Forward_bf16")).unwrap();
    assert!(table[slow].contains("4.000 above   1.000"), "{output}");
    assert!(table[slow + 1].contains("0.100 above   8.900:  53 x bn_moments_bf16"), "{output}");
}
