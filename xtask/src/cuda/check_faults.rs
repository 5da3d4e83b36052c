//! What check.py does where programs, files or signals get in its way; each test seeds one such fault.

use std::fs;
use std::os::unix::fs::symlink;

use super::check_pack::{Pack, expect, ran};
use super::gpu_check::TESTS;

/// A report of `bench gpu-step` or `torch_gpu.py`.
const TURN: &str = r#"{"step_ms": 50.0, "phases_ms": {}, "peak_memory_bytes": 9}"#;

fn error(pack: &Pack, part: &str) -> String {
    pack.part(part)["error"].as_str().unwrap().to_owned()
}

fn first(pack: &Pack, part: &str) -> String {
    error(pack, part).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_program_without_a_report_fails_its_part_and_no_other() {
    let pack = Pack::new("mute");
    for name in ["bench", "tests/across_crates", "pretrain"] {
        pack.program(name, "echo '[1'; exit 0");
    }
    for name in ["ceilings.py", "torch_gpu.py", "gpu_curve.py"] {
        pack.script(name, "print('fine')");
    }
    let (code, output) = pack.check("");
    assert_eq!(code, Some(1), "{output}");
    assert!(!output.contains("check.py itself"), "{output}");
    let turn = "exit code 0, but no report with step_ms, phases_ms, peak_memory_bytes";
    let expected = [
        ("machine", "exit code 0, but no report"),
        ("items", "exit code 0, but only 0 of 1 items"),
        ("step/parity", "it has no test step_parity::on_device"),
        ("bench/bf16", turn),
        ("resume/f32", "it was not stopped in the middle: exit code 0"),
        ("graph/f32", "needs a run of resume/f32, which left none"),
        ("finish_on", "exit code 0, but no line in metrics.jsonl"),
        ("curve/bf16", "exit code 0, but no report with distance, allowed, passed"),
        ("bench/compile", turn),
    ];
    for (part, expected_text) in expected {
        let got = error(&pack, part);
        assert!(got.starts_with(expected_text), "{part}: {got}");
    }
}

#[test]
fn a_report_of_any_length_is_read() {
    let pack = Pack::new("long");
    let long = "$(head -c 300000 /dev/zero | tr '\\0' x)";
    let report =
        TURN.replace('"', "\\\"").replace("{}", &format!("{{}}, \\\"note\\\": \\\"{long}\\\""));
    pack.program("bench", &format!("echo \"{report}\""));
    let (code, output) = pack.check("--only bench/graph");
    assert_eq!(code, Some(0), "{output}");
    expect(&output, &["50.00 ms"]);
}

#[test]
fn a_signal_ends_the_program_with_its_children_and_the_table_comes() {
    for signal in ["INT", "TERM", "QUIT"] {
        let pack = Pack::new(&format!("signal-{signal}"));
        // Twice, as `timeout` sends it.
        let body = format!(
            "setsid sleep 60 & echo $! >child; kill -{signal} $PPID; kill -{signal} $PPID; wait"
        );
        pack.tests("step_parity::on_device::a", &body);
        let (code, output) = pack.check("--only step");
        assert_eq!(code, Some(75), "{output}");
        expect(&output, &["cut off", &format!("stopped by SIG{signal}"), "1 stopped, 1 cut off"]);
        assert_eq!(pack.part("step/parity")["passed"], "cut off");
        assert_eq!(pack.results()["stopped_by"], format!("SIG{signal}"));
        let child = fs::read_to_string(pack.0.join("child")).unwrap();
        // It may be there as what nobody has waited for.
        let state = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "{state}");
    }
}

/// A process in a session of its own keeps the pipes open that its parent had.
#[test]
fn a_grandchild_that_holds_the_output_holds_nothing_up() {
    let pack = Pack::new("held");
    pack.tests(
        "step_parity::on_device::a",
        "setsid sleep 9 & echo 'test step_parity::on_device::a ... ok'",
    );
    let (code, output) = pack.check("--only step/parity");
    assert_eq!(code, Some(0), "{output}");
    assert!(pack.part("step/parity")["seconds"].as_f64().unwrap() < 7.0, "{output}");
    pack.tests("step_parity::on_device::a", "setsid sleep 9 & exec sleep 9");
    let (code, output) = pack.check("--only step/parity --bounds 0.04");
    assert_eq!(code, Some(1), "{output}");
    expect(&output, &["step_parity::on_device::a: not done after"]);
    assert!(pack.part("step/parity")["seconds"].as_f64().unwrap() < 7.0, "{output}");
}

/// One that hangs in a driver cannot be killed; it is named and left.
#[test]
fn a_process_that_does_not_die_is_left() {
    let pack = Pack::new("undead");
    let program = "
import tools
tools.kill_marked, tools.GRACE = lambda mark: None, 0.1
print(tools.run(['sleep', '9'], 0.1).why())";
    let (code, output) = ran(pack.python().args(["-c", program]));
    assert_eq!(code, Some(0), "{output}");
    let (start, end) = output.split_once("; process ").unwrap();
    assert_eq!(start, "not done after 0 s");
    assert!(end.ends_with(" is there 0.1 s after SIGKILL\n"), "{output}");
}

#[test]
fn the_line_that_tells_is_found() {
    let pack = Pack::new("telling");
    let traceback = "x.py:1: UserWarning: old\n  warnings.warn(\nTraceback (most recent call last):\n  \
                     File \"x.py\", line 1\n    f()\nRuntimeError: no kernel image\nfor this device\n";
    let ignored = "error: here\nException ignored in: <f>\nTraceback (most recent call last):\nValueError: late";
    let panic =
        "thread 'a' panicked at x.rs:1:2:\nassertion failed\n  left: 1\n right: 2\nnote: run with";
    let cases = [
        (traceback, "RuntimeError: no kernel image"),
        (ignored, "error: here"),
        (
            "run runs/nan3 seed 0\nerror: the loss is NaN\n  help: lower it\n",
            "error: the loss is NaN",
        ),
        ("with-cuda: libcublas.so.13 not found\nerror: no driver\n", "error: no driver"),
        (panic, "assertion failed; left: 1; right: 2"),
        ("./step --config x\nit ended with 3:\nno device\n\n", "no device"),
        ("killed\nx.py:1: FutureWarning: old\n  warnings.warn(", "killed"),
        ("", ""),
    ];
    for (text, expected) in cases {
        let program = "import sys, tools; print(tools.telling(sys.argv[1]), end='')";
        assert_eq!(ran(pack.python().args(["-c", program, text])), (Some(0), expected.to_owned()));
    }
    pack.script(
        "ceilings.py",
        "import warnings; warnings.warn('old'); raise RuntimeError('no image')",
    );
    let (_, output) = pack.check("--only machine");
    expect(&output, &["exit code 1: RuntimeError: no image"]);
}

#[test]
fn an_item_that_was_begun_and_not_ended_has_failed() {
    let pack = Pack::new("middle");
    let cases = [
        ("echo 'error: out of memory' >&2; exit 1", "add/f32: exit code 1: error: out of memory"),
        ("exit 0", "add/f32: exit code 0 in the middle of it"),
        // Compared, and then the device was gone.
        (
            r#"echo '{"item": "add/f32", "passed": true}'; echo 'error: the device is lost after add/f32' >&2; exit 1"#,
            "add/f32: exit code 1: error: the device is lost after add/f32",
        ),
    ];
    for (fault, expected_text) in cases {
        pack.items(&format!("if [ $name = add/f32 ]; then {fault}; fi"));
        let (code, output) = pack.check("--only items");
        assert_eq!(code, Some(1), "{output}");
        expect(&output, &["2 of 3 items"]);
        assert_eq!(first(&pack, "items"), expected_text);
        assert_eq!(pack.part("items")["details"]["items"]["sgd/f32"]["passed"], true);
    }
}

#[test]
fn items_that_never_ran_are_counted_and_a_bench_that_repeats_itself_is_left() {
    let pack = Pack::new("again");
    let crash = r#"case "$*" in *--list*) echo a b c; exit;; esac
        echo x >>starts; echo '{"begins": "a"}'; exit 7"#;
    pack.program("bench", crash);
    let (code, output) = pack.check("--only items");
    assert_eq!(code, Some(1), "{output}");
    expect(&output, &["0 of 3 items", "a: exit code 7: it said nothing"]);
    expect(&error(&pack, "items"), &["never ran: b, c"]);
    assert_eq!(fs::read_to_string(pack.0.join("starts")).unwrap(), "x\nx\n");
}

/// Each part's first program may take what is left of the part's bound, however large that is made.
#[test]
fn a_part_is_bounded_by_its_bound_and_by_nothing_else() {
    let pack = Pack::new("bounds");
    let program = "
import time, parts, tools
parts.run = lambda words, seconds, **more: seen.append(seconds) or tools.Done(words, 1)
for part in parts.all_parts('cuda:0'):
    seen, context = [], parts.Context('cuda:0', time.time() + 9000, 9)
    part.work(context)
    print(part.name, all(seconds > 8900 for seconds in seen) and (bool(seen) or part.after != ''))";
    let (code, output) = ran(pack.python().args(["-c", program]));
    assert_eq!(code, Some(0), "{output}");
    assert!(output.lines().count() > 20 && !output.contains("False"), "{output}");
}

#[test]
fn the_test_that_ended_its_program_is_named_and_the_others_are_done() {
    let pack = Pack::new("crash");
    let body = r#"case "$*" in
        *--exact*step_parity::on_device::b) kill -11 $$;;
        *--exact*step_parity::on_device::c) printf '\ntest result: ok. 1 passed; 0 failed;'; exit;;
        esac
        echo 'test step_parity::on_device::a ... ok'; __FAULT__"#;
    let names = "step_parity::on_device::a step_parity::on_device::b step_parity::on_device::c";
    pack.tests(names, &body.replace("__FAULT__", "kill -11 $$"));
    let (code, output) = pack.check("--only step/parity");
    assert_eq!(code, Some(1), "{output}");
    expect(&output, &["2 of 3 tests", "step_parity::on_device::b: ended by SIGSEGV"]);
    let repeat =
        "./with-cuda tests/across_crates --test-threads=1 --exact step_parity::on_device::b";
    assert_eq!(pack.part("step/parity")["details"]["repeat"], repeat);
    pack.tests(names, &body.replace("__FAULT__", "exec sleep 60"));
    let (_, output) = pack.check("--only step/parity --bounds 0.04");
    expect(
        &output,
        &["1 of 3 tests", "step_parity::on_device::b or step_parity::on_device::c: not done after"],
    );
}

#[test]
fn programs_that_are_missing_and_tests_that_are_ignored_prove_nothing() {
    let pack = Pack::new("missing");
    let (code, output) = pack.check("--only tests/emulator");
    assert_eq!(code, Some(1), "{output}");
    expect(&output, &["0 of 11 modules"]);
    let each = r#"for name in "$@"; do case $name in
        *::) echo "${name}x: test"; echo "test ${name}x ... ok";;
        esac; done"#;
    for name in TESTS {
        pack.program(&format!("tests/{name}"), each);
    }
    let (code, output) = pack.check("--only tests/emulator");
    assert_eq!(code, Some(0), "{output}");
    pack.program("tests/ops", &format!("case \"$*\" in *emulated_rows*) exit;; esac; {each}"));
    let (_, output) = pack.check("--only tests/emulator");
    expect(&output, &["10 of 11 modules", "emulated_rows: "]);
    pack.tests(
        "step_parity::on_device::a",
        "echo 'test step_parity::on_device::a ... ignored, slow'",
    );
    let (code, output) = pack.check("--only step/parity");
    assert_eq!(code, Some(1), "{output}");
    expect(&output, &["0 of 1 tests", "step_parity::on_device::a: ignored"]);
}

#[test]
fn any_part_can_be_the_first_and_earlier_results_are_kept() {
    let pack = Pack::new("second");
    pack.program("bench", &format!("echo '{TURN}'"));
    pack.script("torch_gpu.py", &format!("print('{TURN}')"));
    let (code, output) = pack.check("--only bench/compile");
    assert_eq!(code, Some(0), "{output}");
    expect(&output, &["50.00 ms, ours 50.00"]);
    pack.program("pretrain", "echo 'error: no data' >&2; exit 4");
    fs::create_dir_all(pack.0.join("runs/whole-f32")).unwrap();
    let (code, output) = pack.check("--only graph/f32");
    assert_eq!(code, Some(1), "{output}");
    expect(&output, &["resume/f32           FAILED", "exit code 4: error: no data; expected 75"]);
    expect(&output, &["needs a run of resume/f32, which left none", "1 FAILED, 1 left out"]);
    let (_, output) = pack.check("--from feed");
    expect(
        &error(&pack, "feed"),
        &["no report with step_ms, phases_ms, peak_memory_bytes, feed.share"],
    );
    expect(&output, &["bench/compile        ok"]);
    let earlier = fs::read_to_string(pack.0.join("results-1.json")).unwrap();
    expect(&earlier, &["bench/compile"]);
    expect(&fs::read_to_string(pack.0.join("results-2.json")).unwrap(), &["graph/f32"]);
}

#[test]
fn results_that_cannot_be_written_are_refused_at_once_or_told_at_the_end() {
    let pack = Pack::new("unwritable");
    let cases = [
        ("--results .", "--results `.` is a folder and no file\n"),
        ("--results no/", "--results `no` is a folder and no file\n"),
        ("--results=", "--results `.` is a folder and no file\n"),
        ("--results /dev/full", "--results `/dev/full` is no ordinary file\n"),
        ("--results no/x", "--results: [Errno 2] No such file or directory: 'no/x.new'\n"),
    ];
    for (words, expected_text) in cases {
        assert_eq!(pack.check(words), (Some(2), expected_text.to_owned()));
    }
    // What a full disk answers, in the middle.
    pack.tests(
        "step_parity::on_device::a",
        "mkdir results.json.new; echo 'test step_parity::on_device::a ... ok'",
    );
    let (code, output) = pack.check("--only step/parity");
    assert_eq!(code, Some(2), "{output}");
    expect(&output, &["1 ok\n", "results.json lacks what came last: [Errno 21] Is a directory"]);
    assert_eq!(pack.results()["running"], "step/parity");
}

/// Only where PyTorch is not installed may its side be left out.
#[test]
fn a_broken_side_of_pytorch_fails_a_rehearsal() {
    let pack = Pack::new("torch");
    pack.program("bench", &format!("echo '{TURN}'"));
    pack.script("torchvision.py", "");
    pack.script("torch_gpu.py", "raise SystemExit('no such model')");
    pack.script("torch.py", "raise ModuleNotFoundError(\"No module named 'torch'\")");
    let (code, output) = pack.check("--device cpu --only bench/bf16");
    assert_eq!(code, Some(0), "{output}");
    expect(&output, &["no PyTorch here (ModuleNotFoundError: No module named 'torch')"]);
    for torch in ["", "raise ImportError('libcudart.so.13: cannot open')"] {
        pack.script("torch.py", torch);
        let (code, output) = pack.check("--device cpu --only bench/bf16");
        assert_eq!(code, Some(1), "{output}");
        expect(&output, &["exit code 1: no such model"]);
    }
    let mut check = pack.python();
    let (code, output) = ran(check.arg("check.py").env("PYTHON", "/nonexistent"));
    assert_eq!(code, Some(2), "{output}");
    expect(&output, &["PYTHON=/nonexistent is no program"]);
    // Relative to where the user is, not to the pack.
    pack.script("torch.py", "");
    pack.program("tests/own", "exec python3 \"$@\"");
    let mut check = pack.python();
    check.args(["../check.py", "--device", "cpu", "--only", "machine"]);
    let (code, output) = ran(check.env("PYTHON", "./own").current_dir(pack.0.join("tests")));
    assert_eq!(code, Some(0), "{output}");
}

#[test]
fn what_needs_a_gpu_is_left_out_on_a_cpu_however_little_time_is_left() {
    let pack = Pack::new("cpu");
    let (code, output) = pack.check("--device cpu --seconds 1 --only bench/graph");
    assert_eq!(code, Some(0), "{output}");
    expect(&output, &["needs a GPU", "1 left out"]);
}

#[test]
fn options_are_checked_and_another_device_is_made_the_first() {
    let pack = Pack::new("options");
    for words in ["--seconds nan", "--seconds -1", "--bounds 0", "--bounds inf", "--bounds 1e300"] {
        let (code, output) = pack.check(words);
        assert_eq!(code, Some(2), "{output}");
        expect(&output, &["is no number above 0"]);
    }
    let (code, output) = pack.check("--device gpu");
    assert_eq!(code, Some(2), "{output}");
    expect(&output, &["`gpu` is neither cpu nor cuda:N"]);
    pack.program("bench", "echo \"error: $CUDA_VISIBLE_DEVICES has $*\" >&2; exit 3");
    let (_, output) = pack.check("--only bench/graph --device cuda:2");
    expect(&output, &["exit code 3: error: 2 has gpu-step --device cuda:0 "]);
    let mut check = pack.python();
    check.args(["check.py", "--only", "bench/graph", "--device", "cuda:1"]);
    let (_, output) = ran(check.env("CUDA_VISIBLE_DEVICES", "4,7"));
    expect(&output, &["exit code 3: error: 7 has gpu-step --device cuda:0 "]);
}

#[test]
fn a_run_that_is_too_slow_is_told_so_and_ended_with_its_children() {
    let pack = Pack::new("slow-run");
    pack.program("pretrain", "sleep 60 & echo $! >child; wait");
    let (code, output) = pack.check("--only resume/bf16 --bounds 0.02");
    assert_eq!(code, Some(1), "{output}");
    expect(&first(&pack, "resume/bf16"), &["not done after "]);
    let child = fs::read_to_string(pack.0.join("child")).unwrap();
    let state = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
}

/// A run that writes checkpoints of one tensor and stops when it is asked to.
const RUN: &str = r#"
save() { mkdir -p "runs/$1/checkpoints"; printf '%s' "$3" >"runs/$1/checkpoints/step-$2.safetensors"; }
end='\070\0\0\0\0\0\0\0{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}   '
case "$*" in
*--resume*) run=$2; mkdir -p "runs/$run/checkpoints"
    case "$*" in *cuda_graph*) byte=__GRAPH__;; *) byte=b;; esac
    printf "$end$byte" >"runs/$run/checkpoints/step-$(__STEP__).safetensors";;
*) run=$3; save "$run" 010 x; save "$run" 020 y; seq 8 >"runs/$run/metrics.jsonl"
    trap 'exit 75' TERM; while :; do sleep 0.02; done;;
esac"#;

#[test]
fn runs_are_compared_by_the_tensors_of_their_last_checkpoints() {
    let pack = Pack::new("runs");
    let run = |graph: &str, step: &str| {
        pack.program("pretrain", &RUN.replace("__GRAPH__", graph).replace("__STEP__", step));
        pack.check("--only graph/f32")
    };
    let (code, output) = run("b", "echo 120");
    assert_eq!(code, Some(0), "{output}");
    expect(&output, &["resume/f32           ok", "equal bits, 2 checkpoints", "2 ok"]);
    let (code, output) = run("c", "echo 120");
    assert_eq!(code, Some(1), "{output}");
    expect(
        &output,
        &["graph/f32            FAILED", "1 tensors differ (bar equal bits)  w differs"],
    );
    let (_, output) = run("b", "case $run in cut*) echo 120;; *) echo 110;; esac");
    expect(
        &output,
        &["the last checkpoints are ['step-110.safetensors'] and ['step-120.safetensors']"],
    );
}

/// The table shows one line of an error; what kind it is may be in another.
#[test]
fn a_crash_is_known_by_any_line_and_the_sanitizer_is_found_beside_nvcc() {
    let pack = Pack::new("sanitizer");
    pack.program(
        "bench",
        "printf 'CUDA_ERROR_ILLEGAL_ADDRESS\\nerror: the step failed\\n' >&2; exit 1",
    );
    fs::remove_file(pack.0.join("compute-sanitizer")).unwrap();
    fs::create_dir_all(pack.0.join("toolkit/bin")).unwrap();
    pack.program("toolkit/bin/nvcc", ":");
    symlink("toolkit/bin/nvcc", pack.0.join("nvcc")).unwrap();
    pack.program("toolkit/bin/compute-sanitizer", "echo '========= Invalid read'; exit 9");
    let (_, output) = pack.check("--only bench/graph");
    expect(&output, &["exit code 1: error: the step failed"]);
    expect(&error(&pack, "bench/graph"), &["compute-sanitizer: Invalid read"]);
}

#[test]
fn a_line_of_the_table_has_at_most_120_characters() {
    let pack = Pack::new("wide");
    let long = "é".repeat(300);
    pack.program("bench", &format!("echo 'error: {long}' >&2; exit 1"));
    let (_, output) = pack.check("--only bench/graph");
    assert!(output.lines().all(|line| line.chars().count() <= 120), "{output}");
    expect(&error(&pack, "bench/graph"), &[&long]);
}

#[test]
fn programs_start_with_the_libraries_of_the_pytorch_that_is_imported() {
    let pack = Pack::new("wheels");
    let script = crate::tree::root().join("xtask/src/cuda/with-cuda.sh");
    let libraries = [
        ("b/nvidia/cu13", "libcublas.so.13"),
        ("b/nvidia/cu13", "libcublasLt.so.13"),
        ("b/nvidia/cu13", "libcurand.so.10"),
        ("b/nvidia/cu13", "libnvrtc.so.13"),
        ("b/nvidia/cudnn", "libcudnn.so.9"),
        ("a/nvidia/nccl", "libnccl.so.2"),
        ("b/nvidia/nccl", "libnccl.so.2"),
    ];
    for (package, library) in libraries {
        let folder = pack.0.join(package).join("lib");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(library), "").unwrap();
    }
    let root = pack.0.to_string_lossy().into_owned();
    let mut started = pack.python();
    started.arg("-c").arg("import os; print(os.environ['LD_LIBRARY_PATH'])");
    let words: Vec<_> = started.get_args().map(ToOwned::to_owned).collect();
    let mut launcher = std::process::Command::new("sh");
    launcher.arg(script).arg("python3").args(words).env("LD_LIBRARY_PATH", "/before");
    let (code, output) = ran(launcher.env("PYTHONPATH", format!("{root}/a:{root}/b")));
    assert_eq!(code, Some(0), "{output}");
    let expected = format!(
        "{root}/a/nvidia/nccl/lib:{root}/b/nvidia/cu13/lib:{root}/b/nvidia/cudnn/lib:/before\n"
    );
    assert_eq!(output, expected);
}
