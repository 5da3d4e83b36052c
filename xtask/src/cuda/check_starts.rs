//! Several starts of check.py: beside each other, after each other, and what outlives one.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::check_pack::{Pack, expect, ran};

/// Reports of a bench and of PyTorch, with a kernel.
const OURS: &str = r#"{"step_ms": 50.0, "phases_ms": {"key_forward": 10.0, "query_forward": 10.0, "loss": 0.5, "backward": 30.0, "optimizer": 0.5}, "peak_memory_bytes": 9, "kernels": [{"op": "a", "kernel": "add_bf16", "shape": "[1]", "calls": 5, "ms": 9.0, "bytes": 8000000000, "flops": 0}]}"#;
const TORCH: &str = r#"{"step_ms": 60.0, "phases_ms": {"key_forward": 12.0, "query_forward": 12.0, "loss": 0.5, "backward": 35.0, "optimizer": 0.5}, "peak_memory_bytes": 10}"#;

/// A pack whose benchmark passes with this report.
fn timed(name: &str, ours: &str) -> Pack {
    let pack = Pack::new(name);
    pack.program("bench", &format!("echo '{ours}'"));
    pack.script("torch_gpu.py", &format!("print('{TORCH}')"));
    pack
}

/// check.py in the background, when `step/parity` runs in it; that part waits for the file `end`.
fn started(pack: &Pack) -> Child {
    let body = "setsid sleep 600 & echo $! >child.new; mv child.new child
        while [ ! -e end ]; do sleep 0.05; done; echo 'test step_parity::on_device::a ... ok'";
    pack.tests("step_parity::on_device::a", body);
    let mut check = pack.python();
    check.args(["check.py", "--only", "step/parity"]).stdout(Stdio::null()).stderr(Stdio::null());
    let check = check.spawn().unwrap();
    wait_for(|| pack.0.join("child").exists());
    check
}

fn wait_for(mut done: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !done() {
        assert!(begin.elapsed().as_secs() < 30, "it does not come");
        std::thread::yield_now();
    }
}

/// Whether a process runs; it may be there as what nobody has waited for.
fn runs(pid: &str) -> bool {
    let state = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
    !state.is_ok_and(|state| state.contains(") Z ")) && Path::new("/proc").join(pid.trim()).exists()
}

#[test]
fn two_in_one_folder_are_refused_and_a_killed_one_leaves_nothing_behind() {
    let pack = Pack::new("two");
    let mut first = started(&pack);
    let before = fs::read(pack.0.join("results.json")).unwrap();
    let (code, output) = pack.check("--only items");
    assert_eq!(code, Some(2), "{output}");
    assert_eq!(output, format!("check.py (process {}) already runs here\n", first.id()));
    assert!(fs::read(pack.0.join("results.json")).unwrap() == before);
    assert!(!pack.0.join("results-1.json").exists());
    let child = fs::read_to_string(pack.0.join("child")).unwrap();
    assert!(runs(&child));
    // SIGKILL, which check.py cannot handle.
    first.kill().unwrap();
    first.wait().unwrap();
    wait_for(|| !runs(&child));
    let (code, output) = pack.check("--only items");
    assert_eq!(code, Some(0), "{output}");
}

#[test]
fn a_grandchild_in_its_own_session_ends_with_an_exceeded_bound() {
    let pack = Pack::new("own-session");
    pack.tests("step_parity::on_device::a", "setsid sleep 600 & echo $! >child; exec sleep 600");
    let (code, output) = pack.check("--only step/parity --bounds 0.03");
    assert_eq!(code, Some(1), "{output}");
    assert!(!runs(&fs::read_to_string(pack.0.join("child")).unwrap()), "{output}");
}

#[test]
fn ceilings_are_measured_along_with_the_kernels_that_need_them() {
    let pack = timed("ceilings", OURS);
    let kernel = "  1.000 above   8.000:   5 x add_bf16 [1]";
    for words in ["--only bench/bf16", "--from bench/bf16 --only bench/bf16"] {
        let (code, output) = pack.check(words);
        assert_eq!(code, Some(0), "{output}");
        expect(&output, &["machine              ok", kernel, "2 ok"]);
        // Phases are in the table of a part that passed too.
        let table = &output[output.find("part  ").unwrap()..];
        expect(table, &["optimizer 0.50 (PyTorch 0.50)"]);
        assert!(output.lines().all(|line| line.chars().count() <= 120), "{output}");
    }
    pack.script("ceilings.py", "raise SystemExit('no device')");
    let (_, output) = pack.check("--only bench/bf16");
    expect(&output, &["no kernel is compared with its floor: `machine` measured no ceilings"]);
}

#[test]
fn figures_that_are_no_numbers_fail_and_the_table_comes() {
    let why = "no kernel is compared with its floor: a report of bench or machine is wrong: ";
    let pack = timed("no-ms", &OURS.replace("\"ms\": 9.0, ", ""));
    let (code, output) = pack.check("--only bench/bf16");
    assert_eq!(code, Some(0), "{output}");
    expect(&output, &[&format!("{why}KeyError: 'ms'"), "2 ok"]);
    let pack = timed("no-rate", OURS);
    let ceilings =
        r#"{"torch": "2", "bytes_per_second": 0.0, "bf16_flops": 1e14, "f32_flops": 1e13}"#;
    pack.script("ceilings.py", &format!("print('{ceilings}')"));
    let (_, output) = pack.check("--only bench/bf16");
    expect(&output, &[&format!("{why}ZeroDivisionError: "), "2 ok"]);
    let pack = timed("nan", &OURS.replace("50.0", "NaN"));
    let (code, output) = pack.check("--only bench/graph");
    assert_eq!(code, Some(1), "{output}");
    expect(&output, &["bench/graph          FAILED", "nan ms  a figure is no number"]);
}

#[test]
fn what_an_earlier_start_left_is_done_and_joined_with_its_results() {
    let pack = timed("missing", OURS);
    let (code, output) = pack.check("--only bench/ --seconds 130.9");
    assert_eq!(code, Some(1), "{output}");
    expect(&output, &["begins: machine, at most 120 s\n", "bench/compile        no time"]);
    let onward = "check.py --missing --only bench/ --seconds 155\n";
    let results = format!("results: {}\n", pack.0.join("results.json").display());
    expect(&output, &[&results, "to continue: ", onward]);
    let torch = r#"print('{"convolutions": [{"torch": {"ms": 1.5}}]}')"#;
    pack.script("torch_gpu_conv.py", torch);
    pack.program("bench", &format!("case $1 in gpu-step) echo '{OURS}';; *) exit 7;; esac"));
    let (code, output) = pack.check("--missing --only bench/ --seconds 900");
    assert_eq!(code, Some(1), "{output}");
    assert!(!output.contains("begins: machine") && !output.contains("to continue"), "{output}");
    expect(
        &output,
        &["begins: bench/compile", "machine              ok", "bench/bf16           ok"],
    );
    expect(
        &output,
        &[
            "bench/convolutions   FAILED",
            "1.000 above   8.000:   5 x add_bf16 [1]",
            "5 ok, 1 FAILED",
        ],
    );
    assert_eq!(pack.part("machine")["passed"], true);
    let (code, output) = pack.check("--missing --device cpu");
    assert_eq!(code, Some(2), "{output}");
    expect(&output, &["results.json is of {'device': 'cuda:0', ", "leave out --missing"]);
    fs::write(pack.0.join("results.json"), "[]").unwrap();
    let (code, output) = pack.check("--missing");
    assert_eq!(code, Some(2), "{output}");
    expect(&output, &["results.json holds no results of check.py (AttributeError: "]);
}

#[test]
fn what_needs_a_part_without_time_had_no_time_either() {
    let pack = Pack::new("no-time");
    let (code, output) = pack.check("--only graph/f32 --seconds 60");
    assert_eq!(code, Some(2), "{output}");
    expect(&output, &["needs resume/f32, for which there was no time", "2 no time"]);
}

#[test]
fn output_that_is_lost_is_no_success() {
    let pack = Pack::new("lost-output");
    let shell = |redirection: &str| {
        let mut shell = Command::new("sh");
        let python = pack.python();
        let program = python.get_program().to_string_lossy().into_owned();
        shell.args(["-c", &format!("'{program}' check.py --only items {redirection}")]);
        ran(shell.current_dir(&pack.0))
    };
    for (redirection, why) in
        [(">/dev/full", "[Errno 28] No space left on device"), (">&-", "stdout is closed")]
    {
        let (code, output) = shell(redirection);
        let results = pack.0.join("results.json");
        let expected =
            format!("output was lost: {why}; the results are in {}\n", results.display());
        assert_eq!((code, output), (Some(2), expected));
        assert_eq!(pack.part("items")["passed"], true);
    }
}

#[test]
fn causes_are_said_in_the_words_of_the_system() {
    let pack = Pack::new("causes");
    // A folder in the place of a file, as a full disk refuses by an error of the system too.
    pack.program("pretrain", "mkdir -p \"runs/$3/metrics.jsonl\"; exec sleep 60");
    let (code, output) = pack.check("--only resume/f32");
    assert_eq!(code, Some(1), "{output}");
    assert!(!output.contains("check.py itself"), "{output}");
    expect(&output, &["[Errno 21] Is a directory: '", "/runs/cut-f32/metrics.jsonl'"]);
    fs::create_dir(pack.0.join("check.lock.old")).unwrap();
    fs::remove_file(pack.0.join("check.lock")).unwrap();
    fs::rename(pack.0.join("check.lock.old"), pack.0.join("check.lock")).unwrap();
    let (code, output) = pack.check("--only items");
    assert_eq!(code, Some(2), "{output}");
    expect(&output, &["cannot write to the folder of check.py: [Errno 21] Is a directory: '"]);
}

#[test]
fn an_item_that_a_device_leaves_out_has_failed() {
    let pack = Pack::new("left-out");
    let fault = r#"if [ $name = add/f32 ]; then echo '{"item": "add/f32", "left_out": "needs a GPU"}'; continue; fi"#;
    pack.items(fault);
    let (code, output) = pack.check("--only items");
    assert_eq!(code, Some(1), "{output}");
    expect(&output, &["2 of 3 items", "add/f32: needs a GPU"]);
    let (code, output) = pack.check("--only items --device cpu");
    assert_eq!(code, Some(0), "{output}");
    expect(&output, &["2 of 2 items"]);
}

#[test]
fn the_curve_leaves_no_files_behind() {
    let pack = Pack::new("curve-files");
    let files = pack.0.join("runs/gpu-curve-files");
    fs::create_dir_all(&files).unwrap();
    fs::write(files.join("in.safetensors"), "of a start that was killed").unwrap();
    let (code, output) = pack.check("--only items");
    assert_eq!(code, Some(0), "{output}");
    assert!(!files.exists());
}

#[test]
fn options_say_what_they_mean() {
    let pack = Pack::new("words");
    let (code, output) = pack.check("--from feed --only machine");
    assert_eq!(code, Some(1), "{output}");
    let expected = "no part begins with `machine`; from feed on there are feed, curve/f32, curve/bf16, bench/compile\n";
    assert_eq!(output, expected);
    let (code, output) =
        ran(pack.python().args(["check.py", "--list"]).env("PYTHON", "/nonexistent"));
    assert_eq!(code, Some(0), "{output}");
    let (_, output) = pack.check("--help");
    expect(&output, &["not end by then (360)", "(cuda:0)"]);
}
