//! The evaluation at the end: what fails costs nothing else, and a resume does only what is missing.

use std::fs;

use serde_json::{Value, json};

use crate::common::{Bench, text};

const AT_END: [&str; 4] = ["--set", "evaluate.at_end=true", "--set", "run.steps=20"];

/// The accuracies of a summary.
fn accuracies(summary: &Value) -> [&Value; 2] {
    ["knn", "linear"].map(|measure| &summary[measure])
}

/// The extractors that a run says it evaluates, in this order.
fn evaluated(stderr: &str) -> Vec<&str> {
    stderr.lines().filter_map(|line| line.strip_prefix("evaluating the ")).collect()
}

fn with<'a>(arguments: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
    [arguments, &AT_END, rest].concat()
}

#[test]
fn a_finished_run_says_so_and_changes_nothing() {
    let bench = Bench::new();
    let output = bench.run(&with(&["tiny.toml", "--name", "done"], &[]));
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(evaluated(&stderr), ["trained encoder", "random encoder", "raw pixels"]);
    let counts = json!({"train": 200, "test": 64, "skipped": 0});
    let summary = bench.summary("done");
    assert_eq!(summary["images"]["trained"], counts);
    assert_eq!((&summary["failed"], &summary["left_out"]), (&json!([]), &json!([])));

    let files = ["summary.json", "metrics.jsonl", "run.log", "config.toml"];
    let contents = || files.map(|name| fs::read(bench.path("runs/done").join(name)).unwrap());
    let (before, state) = (contents(), bench.state("done"));
    // Not even the data is needed.
    fs::remove_dir_all(bench.path("data")).unwrap();
    let again = bench.run(&["--resume", "done"]);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
    let table = text(&output.stdout);
    let (table, _) = table.split_once("\n\nrun folder").unwrap();
    assert_eq!(
        text(&again.stdout),
        format!("{table}\n\nruns/done is finished after 20 steps; nothing is left to do\n")
    );
    assert!(contents() == before && bench.state("done") == state);
}

#[test]
fn a_classifier_that_diverges_costs_nothing_else_and_its_hint_can_be_followed() {
    let bench = Bench::new();
    bench.finish(&with(&["tiny.toml", "--name", "good"], &[]));
    let diverging = ["--set", "evaluate.linear_lr=1e300"];
    let output = bench.run(&with(&["tiny.toml", "--name", "bad"], &diverging));
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let reason = "the linear classifier's loss is NaN in epoch 0 with learning rate 1e300; a lower one: \
                  pretrain --resume RUN --set evaluate.linear_lr=…, or lincls RUN --lr …";
    let expected = format!(
        "error: training is finished and saved, but part of the evaluation failed; --resume tries again \
         only what is missing\n  cause: {reason}\n"
    );
    assert!(stderr.ends_with(&expected), "{stderr}");
    for extractor in ["trained encoder", "random encoder", "raw pixels"] {
        let line = format!("failed: linear classifier of the {extractor}: {reason}\n");
        assert!(stdout.contains(&line), "{stdout}");
    }
    let (good, bad) = (bench.summary("good"), bench.summary("bad"));
    assert_eq!(bad["knn"], good["knn"]);
    assert_eq!(bad["linear"], json!({"pixels": null, "random": null, "trained": null}));
    let failed = |extractor| json!({"extractor": extractor, "measure": "linear", "reason": reason});
    assert_eq!(bad["failed"], json!(["trained", "random", "pixels"].map(failed)));

    let state = bench.state("bad");
    bench.finish(&["--resume", "bad", "--set", "evaluate.linear_lr=0.1"]);
    let bad = bench.summary("bad");
    assert_eq!(accuracies(&bad), accuracies(&good));
    assert_eq!(bad["failed"], json!([]));
    assert!(bad["images_per_second"].as_f64().unwrap() > 1.0, "{bad}");
    assert!(bench.state("bad") == state);
}

#[test]
fn a_resume_measures_only_what_is_missing() {
    let bench = Bench::new();
    bench.finish(&with(&["tiny.toml", "--name", "run"], &[]));
    let whole = bench.summary("run");
    let file = bench.path("runs/run/summary.json");
    for (text_of_summary, expected) in [
        (with_null(&whole, "knn", "random").to_string(), &["random encoder"][..]),
        (with_null(&whole, "linear", "pixels").to_string(), &["raw pixels"]),
        // As a crash of the machine may leave it.
        (String::new(), &["trained encoder", "random encoder", "raw pixels"]),
    ] {
        fs::write(&file, text_of_summary).unwrap();
        let output = bench.run(&["--resume", "run"]);
        let stderr = text(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert_eq!(evaluated(&stderr), expected);
        assert_eq!(accuracies(&bench.summary("run")), accuracies(&whole));
    }
    // A run that was not to be evaluated can be later.
    let sets = ["--set", "evaluate.at_end=false"];
    bench.finish(&with(&["tiny.toml", "--name", "later"], &sets));
    assert_eq!(bench.summary("later")["knn"]["trained"], Value::Null);
    bench.finish(&["--resume", "later", "--set", "evaluate.at_end=true"]);
    assert_eq!(accuracies(&bench.summary("later")), accuracies(&whole));
}

fn with_null(summary: &Value, measure: &str, extractor: &str) -> Value {
    let mut summary = summary.clone();
    summary[measure][extractor] = Value::Null;
    summary
}

/// Each part is in the summary as soon as it is measured, so that a kill costs only the part under way.
#[test]
fn a_kill_costs_only_the_part_under_way() {
    let bench = Bench::new();
    bench.finish(&with(&["tiny.toml", "--name", "whole"], &[]));
    let arguments = with(&["tiny.toml", "--name", "killed"], &[]);
    let mut child = bench.command(&arguments).spawn().unwrap();
    let file = bench.path("runs/killed/summary.json");
    let trained = || -> Option<Value> {
        let summary: Value = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
        Some(summary["linear"]["trained"].clone()).filter(Value::is_number)
    };
    while trained().is_none() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = trained().unwrap();
    let output = bench.run(&["--resume", "killed"]);
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(!stderr.contains("evaluating the trained encoder"), "{stderr}");
    assert_eq!(bench.summary("killed")["linear"]["trained"], before);
    assert_eq!(accuracies(&bench.summary("killed")), accuracies(&bench.summary("whole")));
}

#[test]
fn a_bad_image_is_skipped_in_every_evaluation_and_the_count_is_printed() {
    let bench = Bench::new();
    bench.folders("train", 0..4);
    bench.folders("test", 0..4);
    let cut = |root: &str| {
        let image = bench.path(root).join("c01/0001.jpg");
        let bytes = fs::read(&image).unwrap();
        fs::write(&image, &bytes[..300]).unwrap();
    };
    cut("test");
    let n_test = [0, 1, 2, 3].map(|class| {
        fs::read_dir(bench.path(&format!("test/c{class:02}"))).unwrap().count() as u64
    });
    let n_test: u64 = n_test.iter().sum();
    let sets =
        ["run.steps=10", "evaluate.at_end=true", "monitor.knn_every_steps=5", "monitor.bank=16"];
    let skip = ["data.on_bad_sample=skip", "data.bad_sample_budget=9"];
    let output = bench.run_on_folders("skip", &[&sets[..], &skip].concat());
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    let rest = format!(" % of {} test images; skipped 1 bad images", n_test - 1);
    assert!(stderr.lines().any(|line| line.starts_with("step 5: kNN ") && line.ends_with(&rest)));
    let expected = json!({"train": n_test, "test": n_test - 1, "skipped": 1});
    for extractor in ["trained", "random", "pixels"] {
        assert_eq!(bench.summary("skip")["images"][extractor], expected);
    }
    let expected = format!(
        "\nof {} test images, with {n_test} training images; 1 more could not be used (bad_samples.txt)\n",
        n_test - 1
    );
    assert!(stdout.contains(&expected), "{stdout}");
    let list = fs::read_to_string(bench.path("runs/skip/bad_samples.txt")).unwrap();
    assert!(list.starts_with("test/c01/0001.jpg\t") && list.lines().count() == 1, "{list}");

    // Without the policy the monitor ends the run, and what was trained is saved.
    let output = bench.run_on_folders("fail", &sets);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("error: an image cannot be used; step 5 is saved; "), "{stderr}");
    assert_eq!(bench.state("fail").0, 5);

    // Without a monitor the evaluation has nothing, and its advice can be followed.
    let no_monitor = [sets[0], sets[1], "monitor.knn_every_steps=0"];
    let output = bench.run_on_folders("end", &no_monitor);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    let expected = "error: training is finished and saved, but part of the evaluation failed; --resume \
                    tries again only what is missing\n  cause: an image cannot be used; step 10 is saved; \
                    repair the image and continue by --resume end, or leave out up to 100 such images by \
                    --resume end --set data.on_bad_sample=skip --set data.bad_sample_budget=100; \
                    `cargo xtask doctor FOLDER` names all such images of a folder, and `cargo xtask \
                    shard verify --decode` those of shards\n";
    assert!(stderr.contains(expected), "{stderr}");
    assert_eq!(bench.summary("end")["failed"].as_array().unwrap().len(), 3);
    let advice = ["--set", "data.on_bad_sample=skip", "--set", "data.bad_sample_budget=100"];
    bench.finish(&[&["--resume", "end"][..], &advice].concat());
    assert_eq!(accuracies(&bench.summary("end")), accuracies(&bench.summary("skip")));
    assert_eq!(bench.summary("end")["failed"], json!([]));
}

#[test]
fn images_without_labels_are_trained_on_and_the_evaluation_is_left_out() {
    let bench = Bench::new();
    bench.folders("train", 0..4);
    let sets = ["data.source=image_folder", "data.root=train"].map(|set| ["--set", set]);
    let output = bench.run(&with(&["tiny.toml", "--name", "plain"], &sets.concat()));
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    let reason = "the data has no labeled test images";
    for extractor in ["trained encoder", "random encoder", "raw pixels"] {
        assert!(stderr.contains(&format!("the {extractor} is left out: {reason}\n")), "{stderr}");
        assert!(stdout.contains(&format!("left out: {extractor}: {reason}\n")), "{stdout}");
    }
    assert!(stdout.starts_with("no accuracy was measured; 20 steps, "), "{stdout}");
    let again = bench.run(&["--resume", "plain"]);
    assert!(text(&again.stdout).ends_with("after 20 steps; nothing is left to do\n"));
}
