"""Makes a run of revision e2aaee0: `python3 make.py WORKTREE [argument of cargo build ...]`.

WORKTREE is a checkout of that revision (`git worktree add --detach WORKTREE e2aaee0`), which is built here
with the arguments given, and whose programs then write the data, the run and its features.
"""

import hashlib
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
# What the tests draw anew with this repository's `moco_textures::write`.
DATA = """fn main() {
    let folder = std::env::args_os().nth(1).unwrap();
    let seed = moco_rng::Seed(0);
    let config = moco_textures::TexturesConfig { seed, n_train: 64, n_test: 32, n_workers: 1 };
    moco_textures::write(folder.as_ref(), &config, &mut |_, _| ()).unwrap();
}
"""


def run(*command, folder):
    print("$", *command, flush=True)
    subprocess.run([str(word) for word in command], cwd=folder, check=True)


def main(worktree, cargo):
    worktree = pathlib.Path(worktree).resolve()
    example = worktree / "crates/textures/examples/small.rs"
    example.parent.mkdir(exist_ok=True)
    example.write_text(DATA)
    targets = ["--bin", "pretrain", "--bin", "extract", "--example", "small"]
    run("cargo", "build", "--release", "--locked", *cargo, *targets, folder=worktree)
    programs = worktree / "target/release"
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        shutil.copy(HERE / "tiny.toml", folder)
        (folder / "data").mkdir()
        run(programs / "examples/small", "data", folder=folder)
        run(programs / "pretrain", "tiny.toml", "--name", "old", folder=folder)
        run(programs / "extract", "runs/old", "--out", "features.safetensors", folder=folder)
        for name in ["config.toml", "metrics.jsonl", "summary.json", "checkpoints"]:
            made, kept = folder / "runs/old" / name, HERE / "run" / name
            if kept.is_dir():
                shutil.rmtree(kept)
            kept.parent.mkdir(exist_ok=True)
            shutil.copytree(made, kept) if made.is_dir() else shutil.copy(made, kept)
        shutil.copy(folder / "features.safetensors", HERE)
    files = [path for path in sorted(HERE.rglob("*")) if path.is_file()]
    listed = [path for path in files if path.name not in ["README.md", "SHA256SUMS"]]
    digest = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()
    lines = [f"{digest(path)}  {path.relative_to(HERE).as_posix()}\n" for path in listed]
    (HERE / "SHA256SUMS").write_text("".join(lines))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
