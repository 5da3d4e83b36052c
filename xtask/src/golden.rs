//! Golden files: what an outside reference computed, kept with the script that asked it.
//!
//! A golden file lives in a folder `golden` together with its generator, a Python script, and, where
//! that imports packages, a `requirements.txt` with exact versions. A `.safetensors` file names in its
//! metadata each script that made it as `sha256 NAME`, so a script that changed without its files is
//! found here and not by a reader. A `.json` file lists the `versions` it was made with. Files that can bear no
//! such stamp, as a program of an older revision made them, have their hashes and their script's in a file
//! `SHA256SUMS` beside them. What several crates' scripts share is in `tests/golden`.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::sha256;
use crate::tidy::Problem;
use crate::tree::{self, SourceFile};

/// Files in a golden folder that are not data.
const NOT_DATA: [&str; 4] = ["py", "md", "txt", "rs"];
/// The hashes of all files in its folder and below, as `sha256sum` prints them.
const LIST: &str = "SHA256SUMS";
/// Scripts and pins in this folder serve every crate's golden files.
const SHARED: &str = "tests/golden";
/// Packages of Python's own library that generators import.
const STANDARD_MODULES: [&str; 20] = [
    "argparse",
    "collections",
    "dataclasses",
    "functools",
    "hashlib",
    "io",
    "itertools",
    "json",
    "math",
    "os",
    "pathlib",
    "platform",
    "random",
    "shutil",
    "struct",
    "subprocess",
    "sys",
    "tarfile",
    "tempfile",
    "zlib",
];

/// Checks every golden folder and fails with every problem found.
pub(crate) fn run() -> anyhow::Result<()> {
    let files = tree::files(tree::root())?;
    let mut problems = generators_missing(&files);
    problems.extend(requirements_unpinned(&files));
    let read = |file: &SourceFile| {
        let bytes = fs::read(tree::root().join(&file.path));
        bytes.with_context(|| format!("reading {}", file.path))
    };
    for list in files.iter().filter(|file| is_golden(file) && file.name() == LIST) {
        let mut hashes = BTreeMap::new();
        for file in files.iter().filter(|file| is_listed_by(list, file)) {
            hashes.insert(file.path.clone(), sha256::hex(&read(file)?));
        }
        problems.extend(list_problems(list, &hashes));
    }
    let is_listed = |file: &SourceFile| {
        files.iter().any(|list| list.name() == LIST && is_listed_by(list, file))
    };
    let unlisted = || files.iter().filter(|file| is_golden(file) && !is_listed(file));
    for file in unlisted().filter(|file| file.has_extension("json")) {
        problems.extend(versions_problems(file, &files));
    }
    let mut n_stamped = 0;
    for file in unlisted().filter(|file| file.has_extension("safetensors")) {
        problems.extend(stamp_problem(file, &read(file)?, &files));
        n_stamped += 1;
    }
    for problem in &problems {
        println!("{problem}");
    }
    if !problems.is_empty() {
        bail!("golden: problems found: {}", problems.len());
    }
    println!("golden: {n_stamped} files hold the hash of the scripts beside them, lists the rest");
    Ok(())
}

/// Whether `list` has to name this file: all in its folder and below, but texts for readers.
fn is_listed_by(list: &SourceFile, file: &SourceFile) -> bool {
    let is_below = file.path.starts_with(&format!("{}/", list.folder()));
    is_below && file.path != list.path && !file.has_extension("md")
}

/// Files that `list` does not name by the hash in `hashes`, which has each by its path, and names of none.
fn list_problems(list: &SourceFile, hashes: &BTreeMap<String, String>) -> Vec<Problem> {
    let lines = list.text().lines().filter_map(|line| line.split_once("  "));
    let listed: BTreeMap<String, &str> =
        lines.map(|(hash, name)| (format!("{}/{name}", list.folder()), hash)).collect();
    let wrong = hashes.iter().filter_map(|(path, hash)| match listed.get(path) {
        Some(listed) if listed == hash => None,
        Some(_) => Some(Problem::new(path, format!("is not the file that {LIST} lists"))),
        None => Some(Problem::new(path, format!("{LIST} does not list it"))),
    });
    let gone = listed.keys().filter(|path| !hashes.contains_key(*path));
    wrong.chain(gone.map(|path| Problem::new(path, format!("is in {LIST} and not here")))).collect()
}

/// Golden data without a script in its folder or in the golden folder above it.
pub(crate) fn generators_missing(files: &[SourceFile]) -> Vec<Problem> {
    let data = files.iter().filter(|file| {
        is_golden(file) && !NOT_DATA.iter().any(|extension| file.has_extension(extension))
    });
    data.filter(|file| scripts(file, files).all(|script| !is_near(script, file)))
        .map(|file| Problem::new(&file.path, "no generator (.py) is kept with it"))
        .collect()
}

fn is_golden(file: &SourceFile) -> bool {
    file.folder().split('/').any(|part| part == "golden")
}

/// Whether `other` is in the file's folder or in one above it, up to `golden`.
fn is_near(other: &SourceFile, file: &SourceFile) -> bool {
    let above = format!("{}/", file.folder()).starts_with(&format!("{}/", other.folder()));
    above && is_golden(other)
}

/// The scripts near a file, and the shared ones.
fn scripts<'a>(file: &SourceFile, files: &'a [SourceFile]) -> impl Iterator<Item = &'a SourceFile> {
    let serves = |script: &SourceFile| is_near(script, file) || script.folder() == SHARED;
    let found: Vec<_> = files.iter().filter(|s| s.has_extension("py") && serves(s)).collect();
    found.into_iter()
}

/// Scripts that import packages without saying which versions.
fn requirements_unpinned(files: &[SourceFile]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for script in files.iter().filter(|file| is_golden(file) && file.has_extension("py")) {
        let Some(package) = first_package(script, files) else { continue };
        if requirements(script, files).is_none() {
            let text = format!("imports {package}, but no requirements.txt pins it");
            problems.push(Problem::new(&script.path, text));
        }
    }
    for file in files.iter().filter(|file| is_golden(file) && file.name() == "requirements.txt") {
        for line in file.text().lines().map(str::trim) {
            if !line.is_empty() && !line.starts_with('#') && !line.contains("==") {
                problems.push(Problem::new(&file.path, format!("`{line}` is no exact version")));
            }
        }
    }
    problems
}

/// The `requirements.txt` near a file, or else the shared one.
fn requirements<'a>(of: &SourceFile, files: &'a [SourceFile]) -> Option<&'a SourceFile> {
    let pins = || files.iter().filter(|file| file.name() == "requirements.txt");
    pins().find(|pins| is_near(pins, of)).or_else(|| pins().find(|pins| pins.folder() == SHARED))
}

/// Pinned packages of which a `.json` file says another version, or none.
fn versions_problems(file: &SourceFile, files: &[SourceFile]) -> Vec<Problem> {
    let content: Value = serde_json::from_str(file.text()).unwrap_or_default();
    let pins = requirements(file, files).map_or("", SourceFile::text);
    let pins = pins.lines().filter_map(|line| line.trim().split_once("=="));
    pins.filter_map(|(package, pinned)| {
        let made_with = content["versions"][package].as_str();
        let text = match made_with {
            None => format!("does not say which version of {package} made it"),
            Some(version) if version != pinned => {
                format!("was made with {package} {version}, but {pinned} is pinned")
            }
            Some(_) => return None,
        };
        Some(Problem::new(&file.path, text))
    })
    .collect()
}

/// The first import of a script that is neither Python's own nor a script beside it.
fn first_package(script: &SourceFile, files: &[SourceFile]) -> Option<String> {
    let local = |module: &str| scripts(script, files).any(|s| s.name() == format!("{module}.py"));
    let imported = script.text().lines().filter_map(|line| {
        let rest = line.strip_prefix("import ").or_else(|| line.strip_prefix("from "))?;
        rest.split([' ', '.', ',']).next()
    });
    imported
        .filter(|module| !STANDARD_MODULES.contains(module) && !local(module))
        .map(String::from)
        .next()
}

/// What is wrong with the metadata of a `.safetensors` file, if anything.
fn stamp_problem(file: &SourceFile, bytes: &[u8], files: &[SourceFile]) -> Option<Problem> {
    let metadata = match metadata(bytes) {
        Ok(metadata) => metadata,
        Err(error) => return Some(Problem::new(&file.path, format!("{error:#}"))),
    };
    let mut n_stamps = 0;
    for (key, recorded) in &metadata {
        let Some(name) = key.strip_prefix("sha256 ") else { continue };
        n_stamps += 1;
        let Some(script) = scripts(file, files).find(|script| script.name() == name) else {
            return Some(Problem::new(
                &file.path,
                format!("was made by {name}, which is not here"),
            ));
        };
        if sha256::hex(script.text().as_bytes()) != *recorded {
            let text = format!("was made by another version of {name}: run it again");
            return Some(Problem::new(&file.path, text));
        }
    }
    (n_stamps == 0).then(|| Problem::new(&file.path, "its metadata names no `sha256 SCRIPT`"))
}

/// The metadata in the header of a `.safetensors` file: 8 bytes of length, then JSON.
fn metadata(bytes: &[u8]) -> anyhow::Result<BTreeMap<String, String>> {
    let (length, rest) = bytes.split_first_chunk::<8>().context("shorter than 8 bytes")?;
    let n_bytes = usize::try_from(u64::from_le_bytes(*length)).context("an absurd header")?;
    let header = rest.get(..n_bytes).context("shorter than its header says")?;
    let header: Value = serde_json::from_slice(header).context("its header is no JSON")?;
    let entries = header["__metadata__"].as_object().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().into();
    Ok(entries.map(|(key, value)| (key.clone(), text(value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(problems: impl IntoIterator<Item = Problem>) -> Vec<String> {
        problems.into_iter().map(|problem| problem.to_string()).collect()
    }

    fn safetensors(metadata: &str) -> Vec<u8> {
        let header = format!(r#"{{"__metadata__":{{{metadata}}}}}"#);
        [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()
    }

    #[test]
    fn data_needs_a_generator_beside_or_above() {
        let data = SourceFile::new("tests/golden/core/step.safetensors", "");
        let expected = "tests/golden/core/step.safetensors: no generator (.py) is kept with it";
        assert_eq!(texts(generators_missing(std::slice::from_ref(&data))), [expected]);
        for (path, n_problems) in [
            ("tests/golden/core/make.py", 0),
            ("tests/golden/make.py", 0),
            ("tests/golden/ops/make.py", 1),
            ("crates/a/tests/golden/core/make.py", 1),
        ] {
            let files = [data.clone(), SourceFile::new(path, "")];
            assert_eq!(generators_missing(&files).len(), n_problems, "{path}");
        }
    }

    #[test]
    fn shared_scripts_and_pins_serve_every_crate_but_are_no_generator() {
        let data = SourceFile::new("crates/ops/tests/golden/ops.safetensors", "");
        let shared = SourceFile::new("tests/golden/formulas.py", "abc");
        let text = "from formulas import fill\nimport torch\n";
        let script = SourceFile::new("crates/ops/tests/golden/make.py", text);
        let pins = SourceFile::new("tests/golden/requirements.txt", "torch==2.15.0");
        assert_eq!(generators_missing(&[data.clone(), shared.clone()]).len(), 1);
        let stamp = format!(r#""sha256 formulas.py":"{}""#, sha256::hex(b"abc"));
        let found = stamp_problem(&data, &safetensors(&stamp), std::slice::from_ref(&shared));
        assert_eq!(texts(found), Vec::<String>::new());
        assert_eq!(requirements_unpinned(&[script.clone(), shared.clone()]).len(), 1);
        assert_eq!(texts(requirements_unpinned(&[script, shared, pins])), Vec::<String>::new());
    }

    #[test]
    fn packages_are_pinned() {
        let own = SourceFile::new("tests/golden/formulas.py", "import math\n");
        let text = "import json\nfrom formulas import fill\nimport torch.nn as nn\n";
        let script = SourceFile::new("tests/golden/core/make.py", text);
        let pins = |text| SourceFile::new("tests/golden/requirements.txt", text);
        let found = |files: &[SourceFile]| texts(requirements_unpinned(files));
        let expected = "tests/golden/core/make.py: imports torch, but no requirements.txt pins it";
        assert_eq!(found(&[own.clone(), script.clone()]), [expected]);
        let loose = "tests/golden/requirements.txt: `torch>=2` is no exact version";
        assert_eq!(found(&[own.clone(), script.clone(), pins("# CPU\ntorch>=2\n")]), [loose]);
        assert_eq!(found(&[own, script, pins("torch==2.15.0\n")]), Vec::<String>::new());
    }

    #[test]
    fn a_file_bears_the_hash_of_its_scripts() {
        let script = SourceFile::new("tests/golden/make.py", "abc");
        let file = SourceFile::new("tests/golden/a.safetensors", "");
        let found = |metadata: &str| {
            texts(stamp_problem(&file, &safetensors(metadata), std::slice::from_ref(&script)))
        };
        let good = sha256::hex(b"abc");
        assert_eq!(found(&format!(r#""sha256 make.py":"{good}""#)), Vec::<String>::new());
        for (metadata, expected) in [
            (r#""sha256 make.py":"00""#, "was made by another version of make.py: run it again"),
            (r#""sha256 old.py":"00""#, "was made by old.py, which is not here"),
            (r#""torch":"2.15.0""#, "its metadata names no `sha256 SCRIPT`"),
        ] {
            assert_eq!(found(metadata), [format!("tests/golden/a.safetensors: {expected}")]);
        }
    }

    #[test]
    fn a_list_names_all_files_below_by_their_hashes() {
        let file = |path: &str| SourceFile::new(path, "");
        let list =
            SourceFile::new("golden/run/SHA256SUMS", "00  make.py\n11  a/b.bin\n22  c.bin\n");
        for (path, expected) in [
            ("golden/run/make.py", true),
            ("golden/run/a/b.bin", true),
            ("golden/run/README.md", false),
            ("golden/run/SHA256SUMS", false),
            ("golden/running/b.bin", false),
            ("golden/b.bin", false),
        ] {
            assert_eq!(is_listed_by(&list, &file(path)), expected, "{path}");
        }
        let found = |hashes: &[(&str, &str)]| {
            let each =
                hashes.iter().map(|(name, hash)| (format!("golden/run/{name}"), (*hash).into()));
            texts(list_problems(&list, &each.collect()))
        };
        assert_eq!(
            found(&[("make.py", "00"), ("a/b.bin", "11"), ("c.bin", "22")]),
            Vec::<String>::new()
        );
        assert_eq!(
            found(&[("make.py", "01"), ("a/b.bin", "11"), ("d.bin", "33")]),
            [
                "golden/run/d.bin: SHA256SUMS does not list it",
                "golden/run/make.py: is not the file that SHA256SUMS lists",
                "golden/run/c.bin: is in SHA256SUMS and not here",
            ]
        );
    }

    #[test]
    fn a_json_file_says_the_pinned_versions() {
        let pins = SourceFile::new("golden/requirements.txt", "numpy==2.4.6\npillow==12.3.0\n");
        for (json, expected) in [
            (r#"{"versions": {"numpy": "2.4.6", "pillow": "12.3.0"}}"#, &[][..]),
            (
                r#"{"versions": {"numpy": "2.4.6", "pillow": "13.0.0"}}"#,
                &["golden/a.json: was made with pillow 13.0.0, but 12.3.0 is pinned"],
            ),
            (
                r#"{"versions": {"pillow": "12.3.0"}}"#,
                &["golden/a.json: does not say which version of numpy made it"],
            ),
        ] {
            let file = SourceFile::new("golden/a.json", json);
            assert_eq!(texts(versions_problems(&file, std::slice::from_ref(&pins))), expected);
        }
    }

    #[test]
    fn a_broken_header_is_a_problem() {
        let file = SourceFile::new("golden/a.safetensors", "");
        for (bytes, expected) in [
            (&b"1234"[..], "shorter than 8 bytes"),
            (b"\x09\0\0\0\0\0\0\0{}", "shorter than its header says"),
        ] {
            let found = texts(stamp_problem(&file, bytes, &[]));
            assert_eq!(found, [format!("golden/a.safetensors: {expected}")]);
        }
    }
}
