#!/usr/bin/env python3
"""Proves the programs beside it on the first GPU of this machine, and writes results.json.

Needs an NVIDIA driver from 580 on and a Python with PyTorch for CUDA 13 and torchvision (name it by PYTHON=...). Every part
runs even if one before it failed; the exit code is 0 only if all passed. `--only PREFIX` does some of the
parts, `--device cpu --only resume/f32` tries the script itself out on a machine without a GPU.
"""
import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
PYTHON = os.environ.get("PYTHON", sys.executable)
ARGUMENTS = argparse.ArgumentParser(description=__doc__)
ARGUMENTS.add_argument("--device", default="cuda:0")
ARGUMENTS.add_argument("--only", default="", metavar="PREFIX")
ARGUMENTS = ARGUMENTS.parse_args()
WITH_CUDA = [] if ARGUMENTS.device == "cpu" else [str(HERE / "with-cuda")]
CONFIG = "configs/pretrain/default.toml"
STEPS = 120


def run(command, seconds=180):
    began = time.time()
    environment = {**os.environ, "PYTHON": PYTHON, "RUST_BACKTRACE": "0"}
    try:
        done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=seconds)
        code, out, err = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        texts = [text.decode(errors="replace") if isinstance(text, bytes) else text or "" for text in (late.stdout, late.stderr)]
        code, out, err = "timeout", *texts
    except OSError as error:
        code, out, err = "not started", "", str(error)
    return {"command": " ".join(map(str, command)), "code": code, "seconds": round(time.time() - began, 2), "stdout": out[-20000:], "stderr": err[-4000:]}


def machine():
    query = "name,driver_version,memory.total,clocks.max.sm"
    part = run(["nvidia-smi", f"--query-gpu={query}", "--format=csv"], 20)
    return {**part, "passed": part["code"] == 0}


def tests(program):
    part = run([*WITH_CUDA, str(program), "--test-threads=2"], 240)
    lines = [line for line in part["stdout"].splitlines() if line.startswith("test ")]
    outcome = {line.split(" ... ")[0].removeprefix("test "): line.rsplit(" ... ", 1)[1] for line in lines if " ... " in line}
    # A program without a single test must not look like success.
    passed = part["code"] == 0 and bool(outcome) and all(result == "ok" for result in outcome.values())
    return {**part, "tests": outcome, "passed": passed}


def tensors(path):
    """The bytes of each tensor of a safetensors file; metadata left out, which holds seconds."""
    data = pathlib.Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    body = data[8 + size :]
    return {name: body[slice(*entry["data_offsets"])] for name, entry in header.items() if name != "__metadata__"}


def checkpoint(run_name):
    return sorted((HERE / "runs" / run_name / "checkpoints").glob("step-*.safetensors"))[-1]


def pretrain(*arguments):
    return [*WITH_CUDA, "./pretrain", *arguments, "--device", ARGUMENTS.device]


def resume(precision):
    """A run of its own beside one that was interrupted and went on: the same tensors at the end."""
    sets = ["--set", f"run.steps={STEPS}", "--set", f"run.precision={precision}", "--set", "evaluate.at_end=false", "--set", "monitor.knn_every_steps=0"]
    whole = run(pretrain(CONFIG, "--name", f"whole-{precision}", *sets))
    name = f"cut-{precision}"
    metrics = HERE / "runs" / name / "metrics.jsonl"
    environment = {**os.environ, "PYTHON": PYTHON}
    cut = subprocess.Popen(pretrain(CONFIG, "--name", name, *sets, "--set", "log.every_steps=5"), cwd=HERE, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while cut.poll() is None and time.time() < deadline:
        if metrics.exists() and metrics.read_text().count("\n") >= 8:
            cut.send_signal(signal.SIGTERM)
            break
        time.sleep(0.01)
    try:
        code = cut.wait(60)
    except subprocess.TimeoutExpired:
        cut.kill()
        code = "timeout"
    went_on = run(pretrain("--resume", name))
    part = {"whole": whole, "stopped_with": code, "resumed": went_on, "passed": False}
    if whole["code"] == 0 and went_on["code"] == 0:
        a, b = tensors(checkpoint(f"whole-{precision}")), tensors(checkpoint(name))
        part["different"] = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
        # 75: it was stopped on request, in the middle.
        part["passed"] = code == 75 and not part["different"]
    return part


def finish_on():
    """Views finished on the GPU: the same tensors as with views finished on the CPU."""
    sets = ["--set", "run.steps=20", "--set", "evaluate.at_end=false", "--set", "monitor.knn_every_steps=0", "--set", "augment.fidelity=exact"]
    parts = {place: run(pretrain(CONFIG, "--name", f"finish-{place}", *sets, "--set", f"augment.finish_on={place}")) for place in ("cpu", "gpu")}
    passed = all(part["code"] == 0 for part in parts.values())
    if passed:
        a, b = (tensors(checkpoint(f"finish-{place}")) for place in ("cpu", "gpu"))
        parts["different"] = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
        passed = not parts["different"]
    return {**parts, "passed": passed}


def cuda_graph(precision):
    """Steps repeated from a recording: the same tensors as with steps told one by one, through the monitor that interrupts them."""
    sets = ["--set", "run.steps=60", "--set", f"run.precision={precision}", "--set", "evaluate.at_end=false", "--set", "monitor.knn_every_steps=20"]
    sets += ["--set", "moco.queue_precision=bf16"] if precision == "bf16" else []
    names = {choice: f"graph-{choice}-{precision}" for choice in ("false", "true")}
    parts = {choice: run(pretrain(CONFIG, "--name", name, *sets, "--set", f"run.cuda_graph={choice}")) for choice, name in names.items()}
    passed = all(part["code"] == 0 for part in parts.values())
    if passed:
        a, b = (tensors(checkpoint(name)) for name in names.values())
        parts["different"] = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
        passed = not parts["different"]
    return {**parts, "passed": passed}


def benchmark(command):
    """A program that prints a JSON object last."""
    part = run(command, 150)
    try:
        part["result"] = json.loads(part["stdout"].strip().splitlines()[-1])
    except (ValueError, IndexError):
        part["result"] = None
    return {**part, "passed": part["code"] == 0 and part["result"] is not None}


def main():
    parts = {"machine": machine}
    for program in sorted((HERE / "tests").iterdir()):
        parts[f"tests/{program.name}"] = lambda program=program: tests(program)
    for precision in ("f32", "bf16"):
        parts[f"resume/{precision}"] = lambda precision=precision: resume(precision)
        parts[f"cuda_graph/{precision}"] = lambda precision=precision: cuda_graph(precision)
    parts["finish_on"] = finish_on
    curve = [PYTHON, "xtask/src/cuda/gpu_curve.py", "--device", ARGUMENTS.device]
    for precision in ("f32", "bf16"):
        parts[f"curve/{precision}"] = lambda precision=precision: benchmark([*curve, "--precision", precision, "--", *WITH_CUDA, "./step"])
    ours = [*WITH_CUDA, "./bench", "gpu-step", "--device", ARGUMENTS.device]
    torch = [PYTHON, "xtask/src/bench/torch_gpu.py", "--device", ARGUMENTS.device]
    for precision in ("bf16", "tf32"):
        parts[f"bench/ours/{precision}"] = lambda precision=precision: benchmark([*ours, "--precision", precision])
        parts[f"bench/torch/{precision}"] = lambda precision=precision: benchmark([*torch, "--precision", precision])
    parts["bench/ours/graph"] = lambda: benchmark([*ours, "--precision", "bf16", "--cuda-graph"])
    parts["bench/ours/feed"] = lambda: benchmark([*ours, "--precision", "bf16", "--feed"])
    parts["bench/torch/compile"] = lambda: benchmark([*torch, "--precision", "bf16", "--compile"])
    results, began = {}, time.time()
    for name, part in parts.items():
        if not name.startswith(ARGUMENTS.only):
            continue
        results[name] = part()
        print(f"{'ok    ' if results[name]['passed'] else 'FAILED'}  {time.time() - began:6.1f} s  {name}", flush=True)
        # Written after each part: whatever ends this program, what was found stays.
        (HERE / "results.json").write_text(json.dumps(results, indent=1))
    failed = [name for name, result in results.items() if not result["passed"]]
    print(f"{len(results) - len(failed)} of {len(results)} parts passed; results.json has the details")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
