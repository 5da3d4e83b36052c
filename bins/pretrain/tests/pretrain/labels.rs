//! Labels of image folders, and the sample of them that is the monitor's bank.

use std::fs;

use crate::common::{Bench, text};

fn line<'a>(stderr: &'a str, start: &str) -> Option<&'a str> {
    stderr.lines().find(|line| line.starts_with(start))
}

/// Each test image is a training image too, so the nearest one has its class, by name: as numbers, the test
/// folder's two classes would be others.
#[test]
fn classes_are_matched_by_their_names() {
    let bench = Bench::new();
    bench.folders("train", 0..16);
    bench.folders("test", [5, 9].into_iter());
    for of_system in ["train/.ipynb_checkpoints", "test/@eaDir", "test/lost+found"] {
        fs::create_dir(bench.path(of_system)).unwrap();
        fs::write(bench.path(of_system).join("thumb.jpg"), "no image").unwrap();
    }
    let sets = ["run.steps=20", "evaluate.at_end=true", "monitor.n_neighbors=1"];
    let output = bench.run_on_folders("names", &sets);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let summary = fs::read_to_string(bench.path("runs/names/summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    for who in ["pixels", "random", "trained"] {
        assert_eq!(summary["knn"][who], 100.0, "{who}: {summary}");
    }
}

#[test]
fn classes_of_only_the_test_images_end_the_run_with_a_list() {
    let bench = Bench::new();
    bench.folders("train", 0..3);
    bench.folders("test", 1..5);
    let output = bench.run_on_folders("unknown", &[]);
    assert_eq!(output.status.code(), Some(3));
    let expected = "error: the test images in test have 2 classes that the training images lack: \
                    \"c03\", \"c04\"; the training images have 3: \"c00\", \"c01\", \"c02\"; classes are matched \
                    by name: remove or rename those folders, or add training images of these classes\n";
    let stderr = text(&output.stderr);
    assert!(stderr.ends_with(expected), "{stderr}");
    assert!(!bench.path("runs/unknown").exists(), "the name is free again");
}

/// Folders are sorted by class: the first 64 of 200 images would be of 5 classes or 6. The draw misses a class
/// of 12 or 13 images with the hypergeometric probability of 0.8 or 0.5 %, and more than two of 16 hardly ever.
#[test]
fn the_monitors_bank_is_a_sample_of_all_classes_for_any_number_of_workers() {
    let bench = Bench::new();
    bench.folders("train", 0..16);
    bench.folders("test", 0..16);
    let mut monitored = Vec::new();
    for (name, workers) in [("one", "1"), ("three", "3")] {
        let workers = ["readers", "decoders"].map(|stage| format!("data.{stage}={workers}"));
        let sets = [&workers[0], &workers[1], "monitor.bank=64", "run.steps=21"];
        let output = bench.run_on_folders(name, &sets);
        let stderr = text(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        let bank = line(&stderr, "bank ").unwrap().to_owned();
        let n_classes = bank.strip_prefix("bank 64 of 200, ").unwrap();
        let n_classes = n_classes.strip_suffix(" of 16 classes").unwrap();
        assert!(n_classes.parse::<u32>().unwrap() >= 14, "{bank}");
        assert_eq!(stderr.matches("bank ").count(), 1, "{stderr}");
        monitored.push((bank, line(&stderr, "step 20: kNN ").unwrap().to_owned()));
    }
    assert_eq!(monitored[0], monitored[1]);
}
