//! No circle between the files of a crate: what a file needs can be read before the file itself.
//!
//! An arrow leads from a file to the file that defines what one of its paths names, through re-exports.
//! `mod`, `pub use` and code under `#[cfg(test)]` make none, and neither does the import of a module: the
//! paths through it do.

mod syntax;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use self::syntax::Paths;
use super::Problem;
use crate::tree::SourceFile;

/// Re-exports that lead to each other longer than this are taken for defined where they stand.
const MAX_RE_EXPORTS: usize = 16;

/// One problem for each circle, of the shortest through each file.
pub(super) fn check(files: &[SourceFile]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for root in files.iter().filter(|file| is_root(&file.path)) {
        let modules = Modules::of_crate(files, root.folder());
        for circle in circles(&modules.arrows()) {
            problems.push(Problem::new(root.folder(), circle.join(" -> ")));
        }
    }
    problems
}

fn is_root(path: &str) -> bool {
    path.ends_with("/src/lib.rs") || path.ends_with("/src/main.rs")
}

/// A module's path from the root of its crate.
type ModulePath = Vec<String>;

/// The files of a crate.
struct Modules(BTreeMap<ModulePath, Module>);

struct Module {
    /// The file, from `src`.
    file: String,
    paths: Paths,
}

impl Modules {
    /// Those under a `src`; a module for tests only is left out with all below it.
    fn of_crate(files: &[SourceFile], src: &str) -> Self {
        let mut modules = BTreeMap::new();
        for file in files.iter().filter(|file| file.has_extension("rs")) {
            let Some(name) = file.path.strip_prefix(src).and_then(|rest| rest.strip_prefix('/'))
            else {
                continue;
            };
            let module = Module { file: name.into(), paths: Paths::parse(file.text()) };
            modules.insert(module_path(name), module);
        }
        let mut for_tests = Vec::new();
        for (path, module) in &modules {
            let below = |name: &String| [path.as_slice(), std::slice::from_ref(name)].concat();
            for_tests.extend(module.paths.test_modules.iter().map(below));
        }
        modules.retain(|path, _| !for_tests.iter().any(|tests| path.starts_with(tests)));
        Self(modules)
    }

    /// The files that each file needs.
    fn arrows(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut arrows: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (from, module) in &self.0 {
            let needed = module.paths.needed.iter();
            let targets = needed.filter_map(|path| self.defining(from, path, MAX_RE_EXPORTS));
            let others = targets.filter_map(|to| self.0.get(&to)).map(|to| to.file.as_str());
            arrows.insert(&module.file, others.filter(|to| *to != module.file).collect());
        }
        arrows
    }

    /// The module whose file defines what a path in `from` names; none if that is outside the crate or a
    /// module itself.
    fn defining(&self, from: &[String], path: &[String], n_left: usize) -> Option<ModulePath> {
        let (mut at, rest) = self.start(from, path)?;
        for (idx, name) in rest.iter().enumerate() {
            let below = [at.as_slice(), std::slice::from_ref(name)].concat();
            if self.0.contains_key(&below) {
                at = below;
                continue;
            }
            let import = self.0.get(&at).and_then(|module| module.paths.imports.get(name));
            let Some(import) = import.filter(|import| import.len() > 1 && n_left > 0) else {
                return Some(at);
            };
            let whole = [import.as_slice(), &rest[idx + 1..]].concat();
            // A name from outside counts for the file that passes it on.
            let outside = self.start(&at, &whole).is_none();
            return if outside { Some(at) } else { self.defining(&at, &whole, n_left - 1) };
        }
        None
    }

    /// The module that a path begins in, and its names from there; none if that is another crate.
    fn start<'a>(&self, from: &[String], path: &'a [String]) -> Option<(ModulePath, &'a [String])> {
        let first = path.first()?;
        match first.as_str() {
            "crate" => return Some((Vec::new(), &path[1..])),
            "self" => return Some((from.to_vec(), &path[1..])),
            "super" => {
                let n_up = path.iter().take_while(|name| *name == "super").count();
                return Some((from[..from.len().checked_sub(n_up)?].to_vec(), &path[n_up..]));
            }
            _ => {}
        }
        let module = self.0.get(from)?;
        let below = [from, std::slice::from_ref(first)].concat();
        if self.0.contains_key(&below) {
            return Some((from.to_vec(), path));
        }
        let import = module.paths.imports.get(first).filter(|import| import.len() > 1)?;
        let imported = import.first().is_some_and(|first_of| first_of != first);
        (imported && self.start(from, import).is_some()).then(|| (from.to_vec(), path))
    }
}

/// `a/b.rs` and `a/b/mod.rs` are the module `a::b`.
fn module_path(file: &str) -> ModulePath {
    let mut parts: ModulePath = file.trim_end_matches(".rs").split('/').map(String::from).collect();
    if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        parts.pop();
    }
    parts
}

/// The shortest circle through each file that is in one, each once, beginning with its first file by name.
fn circles<'a>(arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<Vec<&'a str>> {
    arrows.keys().filter_map(|start| circle_through(arrows, start)).collect()
}

fn circle_through<'a>(
    arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    start: &'a str,
) -> Option<Vec<&'a str>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut waiting = VecDeque::from([start]);
    while let Some(from) = waiting.pop_front() {
        for to in &arrows[from] {
            if *to == start {
                let mut circle = vec![from];
                while let Some(before) = came_from.get(circle[circle.len() - 1]) {
                    circle.push(before);
                }
                circle.reverse();
                let first = (0..circle.len()).min_by_key(|idx| circle[*idx]).unwrap_or(0);
                circle.rotate_left(first);
                circle.push(circle[0]);
                return Some(circle);
            }
            if !came_from.contains_key(to) {
                came_from.insert(to, from);
                waiting.push_back(to);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The circles in `crates/x/src` with these files beside an empty root.
    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let mut sources = vec![SourceFile::new("crates/x/src/lib.rs", "")];
        sources.retain(|_| files.iter().all(|(path, _)| *path != "lib.rs"));
        let source =
            |(path, text): &(&str, &str)| SourceFile::new(&format!("crates/x/src/{path}"), text);
        sources.extend(files.iter().map(source));
        check(&sources).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn two_files_that_need_each_other_are_a_circle() {
        let circle = "crates/x/src: a.rs -> b.rs -> a.rs";
        for (a, b) in [
            ("use crate::b::B;", "use crate::a::A;"),
            ("use super::b::{B, C};", "use super::{a::A, c::C};"),
            ("fn f() { crate::b::f() }", "use crate::a::*;"),
            ("use crate::b;\nfn f() { b::f() }", "fn g(a: super::a::A) {}"),
            ("use crate as x;\nuse crate::b::B;", "macro_rules! m { () => { $crate::a::f() } }"),
        ] {
            assert_eq!(found(&[("a.rs", a), ("b.rs", b)]), [circle], "{a} | {b}");
        }
    }

    #[test]
    fn arrows_of_one_direction_are_none() {
        for (a, b) in [
            ("use crate::b::B;", "use crate::c::C;"),
            ("use crate::b::B;", "use crate::a;"),
            ("use crate::b::B;", "/// [`crate::a::A`]\nstruct B;"),
            ("use crate::b::B;", "#[cfg(test)]\nmod tests { use crate::a::A; }"),
            ("use crate::b::B;", "use a::A;"),
            ("use crate::b::B;", "pub use crate::a::A;"),
        ] {
            assert_eq!(found(&[("a.rs", a), ("b.rs", b)]), Vec::<String>::new(), "{a} | {b}");
        }
    }

    #[test]
    fn a_module_and_those_below_it_are_files_as_any() {
        let expected = ["crates/x/src: a/b.rs -> a/mod.rs -> a/b.rs"];
        assert_eq!(
            found(&[("a/mod.rs", "mod b;\nfn f() { b::f() }"), ("a/b.rs", "use super::A;")]),
            expected
        );
        let renamed = [("a.rs", "mod b;\nuse b::B;"), ("a/b.rs", "use super::A;")];
        assert_eq!(found(&renamed), ["crates/x/src: a.rs -> a/b.rs -> a.rs"]);
        let with_root = [("lib.rs", "mod a;\nuse a::A;"), ("a.rs", "use crate::Error;")];
        assert_eq!(found(&with_root), ["crates/x/src: a.rs -> lib.rs -> a.rs"]);
    }

    #[test]
    fn a_re_exported_name_counts_for_the_file_that_defines_it() {
        let root = ("lib.rs", "mod a;\nmod b;\nmod c;\npub use a::A;\npub use b::{B, C};");
        let (b, c) = (("b.rs", "pub use super::c::C;"), ("c.rs", "use crate::A;"));
        let circle = ["crates/x/src: a.rs -> c.rs -> a.rs"];
        assert_eq!(found(&[root, ("a.rs", "use crate::C;"), b, c]), circle);
        assert_eq!(found(&[root, ("a.rs", "use crate::B;"), b, c]), Vec::<String>::new());
    }

    #[test]
    fn long_circles_are_found_once_and_those_of_tests_are_not() {
        let long = [
            ("c.rs", "use crate::a::A;"),
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "use crate::c::C;"),
        ];
        assert_eq!(found(&long), ["crates/x/src: a.rs -> b.rs -> c.rs -> a.rs"]);
        let tests = [
            ("a.rs", "use crate::b::B;\n#[cfg(test)]\nmod tests;"),
            ("b.rs", ""),
            ("a/tests.rs", "use super::A;"),
            ("a/tests/c.rs", "use super::*;\nuse crate::b::B;"),
        ];
        assert_eq!(found(&tests), Vec::<String>::new());
    }

    #[test]
    fn crates_are_told_apart() {
        let files = [
            SourceFile::new("crates/x/src/lib.rs", "mod a;\nuse a::A;"),
            SourceFile::new("crates/x/src/a.rs", ""),
            SourceFile::new("bins/y/src/main.rs", "mod a;"),
            SourceFile::new("bins/y/src/a.rs", "use crate::A;"),
        ];
        assert_eq!(check(&files), []);
    }
}
