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
import shutil
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
        # A session of its own, so that what it has started ends with it and is not in the way of other parts.
        program = subprocess.Popen(
            command, cwd=HERE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
        )
        try:
            out, err = program.communicate(timeout=seconds)
            code = program.returncode
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            out, err = program.communicate()
            code = "timeout"
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


def fresh(run_name):
    """The folder of a run, without what an earlier start of this program left there."""
    folder = HERE / "runs" / run_name
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def differences(a, b):
    """Names of the tensors that differ at the end of two runs."""
    a, b = tensors(checkpoint(a)), tensors(checkpoint(b))
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def at_first_checkpoint(run_folder, name):
    """A copy of a run as it was when it had saved once."""
    copy = fresh(name)
    shutil.copytree(run_folder, copy)
    for later in sorted((copy / "checkpoints").glob("step-*.safetensors"))[1:]:
        later.unlink()
    return copy


def pretrain(*arguments):
    return [*WITH_CUDA, "./pretrain", *arguments, "--device", ARGUMENTS.device]


def resume(precision):
    """A run that is interrupted and goes on, beside one that goes on from its first checkpoint without an interruption.

    Both end with the same tensors. Two runs from the start might not: each measures the algorithms of its
    convolutions, and a checkpoint names those that were chosen.
    """
    sets = [f"run.steps={STEPS}", f"run.precision={precision}", "evaluate.at_end=false", "monitor.knn_every_steps=0"]
    sets += ["log.every_steps=5", "checkpoint.every_steps=10", f"checkpoint.keep={STEPS}"]
    cut = fresh(f"cut-{precision}")
    command = pretrain(CONFIG, "--name", cut.name, *(word for pair in sets for word in ("--set", pair)))
    metrics = cut / "metrics.jsonl"
    environment = {**os.environ, "PYTHON": PYTHON}
    program = subprocess.Popen(command, cwd=HERE, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 120
    while program.poll() is None and time.time() < deadline:
        if metrics.exists() and metrics.read_text().count("\n") >= 8:
            program.send_signal(signal.SIGTERM)
            break
        time.sleep(0.01)
    try:
        err = program.communicate(timeout=60)[1]
        code = program.returncode
    except subprocess.TimeoutExpired:
        program.kill()
        code, err = "timeout", program.communicate()[1]
    # 75: it was stopped on request, in the middle.
    part = {"stopped_with": code, "stderr": err[-4000:], "passed": False}
    if code != 75:
        return part
    whole = at_first_checkpoint(cut, f"whole-{precision}")
    runs = {name: run(pretrain("--resume", folder.name)) for name, folder in (("whole", whole), ("resumed", cut))}
    if all(done["code"] == 0 for done in runs.values()):
        part["different"] = differences(whole.name, cut.name)
        part["passed"] = not part["different"]
    return {**part, **runs}


def first_loss(run_name):
    return json.loads((HERE / "runs" / run_name / "metrics.jsonl").read_text().splitlines()[0])["loss"]


def finish_on():
    """Views finished on the GPU: the loss of the first step is that of views finished on the CPU.

    That the views have the same bits is tested by images_on_gpu; the two runs may have chosen other
    algorithms for their convolutions.
    """
    sets = ["run.steps=20", "evaluate.at_end=false", "monitor.knn_every_steps=0", "augment.fidelity=exact", "log.every_steps=1"]
    words = [word for pair in sets for word in ("--set", pair)]
    parts = {place: run(pretrain(CONFIG, "--name", fresh(f"finish-{place}").name, *words, "--set", f"augment.finish_on={place}")) for place in ("cpu", "gpu")}
    passed = all(part["code"] == 0 for part in parts.values())
    if passed:
        parts["losses"] = [first_loss(f"finish-{place}") for place in ("cpu", "gpu")]
        passed = abs(parts["losses"][0] / parts["losses"][1] - 1) < 1e-4
    return {**parts, "passed": passed}


def cuda_graph(precision):
    """A run that goes on from its first checkpoint by repeating a recorded step ends with the tensors of the run that was told each.

    Takes up what resume() left.
    """
    whole = HERE / "runs" / f"whole-{precision}"
    if not whole.is_dir():
        return {"error": f"resume/{precision} left no run to go on from", "passed": False}
    repeated = at_first_checkpoint(whole, f"repeated-{precision}")
    part = run(pretrain("--resume", repeated.name, "--set", "run.cuda_graph=true"))
    if part["code"] == 0:
        part["different"] = differences(whole.name, repeated.name)
    return {**part, "passed": part.get("different") == []}


def benchmark(command, seconds=150):
    """A program that prints a JSON object last."""
    part = run(command, seconds)
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
    convolutions = ["gpu-conv", "--device", ARGUMENTS.device, "--precision", "bf16"]
    parts["bench/ours/conv"] = lambda: benchmark([*WITH_CUDA, "./bench", *convolutions])
    parts["bench/torch/conv"] = lambda: benchmark([PYTHON, "xtask/src/bench/torch_gpu_conv.py", *convolutions[1:]])
    # Compiling takes minutes; last, so that nothing waits for it.
    parts["bench/torch/compile"] = lambda: benchmark([*torch, "--precision", "bf16", "--compile"], 300)
    results, began = {}, time.time()
    for name, part in parts.items():
        if not name.startswith(ARGUMENTS.only):
            continue
        try:
            results[name] = part()
        except Exception as error:
            results[name] = {"error": repr(error), "passed": False}
        print(f"{'ok    ' if results[name]['passed'] else 'FAILED'}  {time.time() - began:6.1f} s  {name}", flush=True)
        # Written after each part: whatever ends this program, what was found stays.
        (HERE / "results.json").write_text(json.dumps(results, indent=1))
    failed = [name for name, result in results.items() if not result["passed"]]
    print(f"{len(results) - len(failed)} of {len(results)} parts passed; results.json has the details")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
