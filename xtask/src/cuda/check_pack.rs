//! A folder of made-up programs for tests of check.py.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::tree;

/// A folder as `gpu-check` packs it, in which nothing fails.
pub(super) struct Pack(pub(super) PathBuf);

impl Drop for Pack {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Three items that are right.
const ITEMS: &str = r#"
names="relu/f32 add/f32 sgd/f32"
case "$*" in *--list*) echo "$names"; exit;; esac
seen=$(echo "$*" | sed -n 's/.*--after \([^ ]*\).*/\1/p')
for name in $names; do
    if [ -n "$seen" ]; then [ "$name" = "$seen" ] && seen=; continue; fi
    echo "{\"begins\": \"$name\"}"
    __FAULT__
    echo "{\"item\": \"$name\", \"passed\": true, \"seconds\": 0.1, \"worst\": 0.0}"
done
"#;

impl Pack {
    pub(super) fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("moco-check-{name}-{}", std::process::id()));
        let pack = Self(folder);
        fs::create_dir_all(pack.0.join("tests")).unwrap();
        for entry in fs::read_dir(tree::root().join("xtask/src/cuda/check")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "py") {
                fs::copy(&path, pack.0.join(path.file_name().unwrap())).unwrap();
            }
        }
        let ceilings = r#"{"torch": "2", "device": "made up", "bytes_per_second": 1e12, "bf16_flops": 1e14, "f32_flops": 1e13}"#;
        pack.script("ceilings.py", &format!("print('{ceilings}')"));
        pack.program("with-cuda", "exec \"$@\"");
        pack.program("compute-sanitizer", "echo '========= nothing'");
        pack.items(":");
        pack.tests("step_parity::on_device::a", "echo 'test step_parity::on_device::a ... ok'");
        pack
    }

    pub(super) fn program(&self, name: &str, body: &str) {
        let path = self.0.join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// `bench gpu-items` with a fault between the beginning of each item and its end.
    pub(super) fn items(&self, fault: &str) {
        self.program("bench", &ITEMS.replace("__FAULT__", fault));
    }

    /// The test program of `step/parity`, which lists these tests and runs them by that body.
    pub(super) fn tests(&self, names: &str, body: &str) {
        let list = format!("for name in {names}; do echo \"$name: test\"; done; exit");
        let body = format!("case \"$*\" in *--list*) {list};; esac\n{body}");
        self.program("tests/across_crates", &body);
    }

    /// A program of Python's, or a module.
    pub(super) fn script(&self, name: &str, body: &str) {
        fs::write(self.0.join(name), body).unwrap();
    }

    /// Exit code and what was printed.
    pub(super) fn check(&self, words: &str) -> (Option<i32>, String) {
        let mut check = self.python();
        check.arg(self.0.join("check.py")).args(words.split_whitespace());
        ran(&mut check)
    }

    /// Python with our stand-ins before the machine's programs.
    pub(super) fn python(&self) -> Command {
        let others = std::env::var_os("PATH").unwrap();
        let places = std::iter::once(self.0.clone()).chain(std::env::split_paths(&others));
        let mut python = Command::new(interpreter());
        python.env("PATH", std::env::join_paths(places).unwrap()).current_dir(&self.0);
        python.env_remove("PYTHON").env_remove("CUDA_VISIBLE_DEVICES");
        python
    }

    /// What `results.json` has of a part.
    pub(super) fn part(&self, name: &str) -> serde_json::Value {
        self.results()["parts"][name].clone()
    }

    pub(super) fn results(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.0.join("results.json")).unwrap()).unwrap()
    }
}

pub(super) fn expect(output: &str, expected: &[&str]) {
    for expected in expected {
        assert!(output.contains(expected), "no `{expected}` in\n{output}");
    }
}

/// Python itself: what PATH has may be a script that looks for it, each time.
fn interpreter() -> &'static PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let words = ["-c", "import sys; print(sys.executable, end='')"];
        let (code, path) = ran(Command::new("python3").args(words));
        assert_eq!(code, Some(0), "{path}");
        path.into()
    })
}

/// Exit code and what was printed.
pub(super) fn ran(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &error)
}
