//! Tests that no test program has: where a package lists its programs itself, or says that its program has no
//! tests, cargo does not find them.

use super::Problem;
use crate::tree::SourceFile;

/// Files beside the `main.rs` of a package's tests that neither a module, a path nor the package names.
pub(super) fn check(files: &[SourceFile]) -> Vec<Problem> {
    let lists_its_tests = |file: &&SourceFile| {
        file.name() == "Cargo.toml" && file.text().lines().any(|line| line == "autotests = false")
    };
    let mut problems = Vec::new();
    for manifest in files.iter().filter(lists_its_tests) {
        let package = manifest.folder();
        // The tests that cross crates are the package `tests` itself.
        let folder = if package == "tests" { package.into() } else { format!("{package}/tests") };
        let in_folder = |file: &&SourceFile| file.folder() == folder && file.has_extension("rs");
        for file in files.iter().filter(in_folder) {
            if !is_named(file, &folder, manifest, files) {
                let text = format!("is in no test program of {}", manifest.path);
                problems.push(Problem::new(&file.path, text));
            }
        }
    }
    problems.extend(within_programs(files));
    problems
}

/// Tests in the sources of a program that is not built as a test.
fn within_programs(files: &[SourceFile]) -> impl Iterator<Item = Problem> {
    let has_none = |file: &&SourceFile| {
        file.name() == "Cargo.toml" && file.text().lines().any(|line| line == "test = false")
    };
    files.iter().filter(has_none).flat_map(move |manifest| {
        let sources = format!("{}/src/", manifest.folder());
        let has_tests = move |file: &&SourceFile| {
            file.path.starts_with(&sources) && file.text().contains("#[test]")
        };
        files.iter().filter(has_tests).map(|file| {
            let text = format!("has tests, but {} says `test = false`", manifest.path);
            Problem::new(&file.path, text)
        })
    })
}

fn is_named(file: &SourceFile, folder: &str, manifest: &SourceFile, files: &[SourceFile]) -> bool {
    let name = file.name();
    let module = format!("mod {};", name.trim_end_matches(".rs"));
    let as_program = [format!("path = \"{name}\""), format!("path = \"tests/{name}\"")];
    let as_path = format!("/{name}\"]");
    as_program.iter().any(|path| manifest.text().contains(path))
        || files.iter().filter(|other| other.has_extension("rs")).any(|other| {
            let is_module = |line: &str| line == module && other.folder() == folder;
            let is_path = |line: &str| line.starts_with("#[path = ") && line.ends_with(&as_path);
            other.text().lines().any(|line| is_module(line) || is_path(line))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_file_that_nothing_names_is_found() {
        let manifest = "[package]\nautotests = false\n[[test]]\npath = \"tests/main.rs\"\n";
        let lib = ("crates/b/tests/b.rs", "#[path = \"../../a/tests/shared.rs\"]\nmod shared;\n");
        let mut files: Vec<SourceFile> = [
            ("crates/a/Cargo.toml", manifest),
            ("crates/a/tests/main.rs", "mod one;\n"),
            ("crates/a/tests/one.rs", ""),
            ("crates/a/tests/shared.rs", ""),
            ("crates/b/Cargo.toml", "[package]\n"),
            lib,
        ]
        .map(|(path, text)| SourceFile::new(path, text))
        .into();
        assert_eq!(check(&files).len(), 0);
        files[1] = SourceFile::new("crates/a/tests/main.rs", "// mod one;\n");
        let found: Vec<String> = check(&files).iter().map(Problem::to_string).collect();
        assert_eq!(found, ["crates/a/tests/one.rs: is in no test program of crates/a/Cargo.toml"]);
    }

    #[test]
    fn tests_in_a_program_that_says_it_has_none_are_found() {
        let program = |key: &str| {
            let manifest = format!("[[bin]]\n{key}\n");
            let main = "#[cfg(test)]\nmod tests {\n    #[test]\n    fn one() {}\n}\n";
            [("bins/a/Cargo.toml", &*manifest), ("bins/a/src/main.rs", main)]
                .map(|(path, text)| SourceFile::new(path, text))
        };
        assert_eq!(check(&program("name = \"a\"")).len(), 0);
        let found: Vec<String> =
            check(&program("test = false")).iter().map(Problem::to_string).collect();
        assert_eq!(
            found,
            ["bins/a/src/main.rs: has tests, but bins/a/Cargo.toml says `test = false`"]
        );
    }
}
