"""The parts of check.py, in the order of what they tell a second."""

import dataclasses
import json
import os
import signal
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from tools import HERE, PYTHON, Outcome, at_first_checkpoint, checkpoints, differences, first_error, fresh, json_lines, run

CONFIG = "configs/pretrain/default.toml"
# Of an interrupted run.
STEPS = 120
# Turns that each side of the benchmark takes, and what a turn is.
TURNS = 2
TURN = ["--steps", "20", "--blocks", "2", "--warmup", "8"]
# Ours in a rehearsal: bench gpu-step and torch_gpu.py know the same words.
SMALL = ["--precision", "f32", "--size", "64", "--batch-size", "4", "--queue-size", "64", "--steps", "1", "--blocks", "1", "--warmup", "1"]


@dataclasses.dataclass
class Part:
    name: str
    # Seconds that it may take.
    bound: float
    work: object


class Context:
    """What parts know of the machine and of each other."""

    def __init__(self, device, ends):
        self.device, self.ends, self.part_ends = device, ends, ends
        self.with_cuda = [] if device == "cpu" else [str(HERE / "with-cuda")]
        self.folder, self.ceilings, self.turns = HERE, None, {}

    def left(self):
        return self.ends - time.time()

    def run(self, command, seconds, **environment):
        """A program of ours, or whatever starts with the interpreter; within the part's bound."""
        start = [] if command[0] == PYTHON else self.with_cuda
        return run([*start, *command], min(seconds, self.part_ends - time.time()), **environment)

    def ours(self, done):
        """The words of a program of ours that ran, without what started it."""
        return done.command.split()[len(self.with_cuda) :]

    def kernels(self):
        return next((turn["kernels"] for turn in self.turns.get("ours/bf16", []) if turn.get("kernels")), None)


def failed(done, **details):
    """The outcome of a program that did not end well."""
    return Outcome(False, error=done.why(), details={"command": done.command, "out": done.out[-4000:], "err": done.err, **details})


def needs_a_gpu(_context):
    return Outcome(None, error="needs a GPU")


def has_pytorch():
    return run([PYTHON, "-c", "import torch, torchvision"], 60).code == 0


def machine(context):
    done = context.run([PYTHON, "ceilings.py", context.device], 60)
    if done.code != 0:
        return failed(done) if context.device != "cpu" else Outcome(None, error="no PyTorch here")
    found = json_lines(done.out)[-1]
    if context.device == "cpu":
        return Outcome(True, f"PyTorch {found['torch']}", details=found)
    query = "name,driver_version,memory.total,clocks.max.sm,clocks.max.mem"
    found["nvidia-smi"] = run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], 20).out.strip()
    context.ceilings = found
    figure = f"{found['bytes_per_second'] / 1e12:.2f} TB/s, {found['bf16_flops'] / 1e12:.0f} TFLOP/s"
    return Outcome(True, figure, details=found)


def items(context):
    """Every kernel and library call once. Behind an item that ended the context, a fresh process goes on."""
    reports, lost, after = {}, [], []
    while True:
        done = context.run(["./bench", "gpu-items", "--device", context.device, *after], 60)
        lines = json_lines(done.out)
        reports |= {line["item"]: line for line in lines if "item" in line}
        begun = [line["begins"] for line in lines if "begins" in line]
        if done.code in (0, 1) and "is lost behind" not in done.err:
            break
        if not begun:
            return failed(done, items=reports)
        lost.append(begun[-1])
        reports.setdefault(begun[-1], {"item": begun[-1], "passed": False})["process"] = done.why()
        after = ["--after", begun[-1]]
        if done.code == "timeout" and context.part_ends - time.time() < 2:
            break
    wrong = [report for report in reports.values() if report.get("passed") is False]
    done_at_all = [report for report in reports.values() if "left_out" not in report]
    figure = f"{len(done_at_all) - len(wrong)} of {len(done_at_all)} items"
    if not wrong:
        return Outcome(bool(done_at_all), figure, details={"items": reports}, error="" if done_at_all else "it did nothing")
    told = [f"{report['item']}: {report.get('error') or report.get('process')}" for report in wrong]
    if lost:
        told.append(f"fresh processes went on behind {', '.join(lost)}")
    repeat = ["./bench", "gpu-items", "--device", context.device, "--only", wrong[0]["item"]]
    return Outcome(False, figure, error="\n".join(told), details={"items": reports, "repeat": repeat})


def tests(context, program, names=(), seconds=120, threads=4):
    """Tests of a test program whose names begin so; all of them without names."""
    command = [f"tests/{program}", f"--test-threads={threads}", *names]
    done = context.run(command, seconds)
    lines = [line for line in done.out.splitlines() if line.startswith("test ") and " ... " in line]
    found = {line.split(" ... ")[0].removeprefix("test "): line.rsplit(" ... ", 1)[1] for line in lines}
    wrong = [name for name, result in found.items() if result not in ("ok", "ignored")]
    figure = f"{len(found) - len(wrong)} of {len(found)} tests"
    if done.code == 0 and found and not wrong:
        return Outcome(True, figure, details={"tests": found})
    # libtest tells of a failed test under a heading of its own.
    told = [part.split("\n", 1) for part in done.out.split("\n---- ")[1:]]
    told = [f"{head.split(' stdout')[0]}: {first_error(body)}" for head, body in told]
    error = "\n".join(told) or done.why() or "not a single test ran"
    repeat = [f"tests/{program}", "--test-threads=1", "--exact", *(wrong[:1] or names)]
    return Outcome(False, figure, error=error, details={"tests": found, "out": done.out[-30_000:], "err": done.err, "repeat": repeat})


def together(context, programs):
    """Several test programs at a time: each mostly waits for its own copies."""
    with ThreadPoolExecutor(4) as pool:
        outcomes = dict(zip(programs, pool.map(lambda program: tests(context, program, threads=2), programs)))
    wrong = {name: outcome for name, outcome in outcomes.items() if not outcome.passed}
    count = sum(len(outcome.details.get("tests", {})) for outcome in outcomes.values())
    details = {name: outcome.details for name, outcome in outcomes.items()}
    if not wrong:
        return Outcome(True, f"{count} tests of {len(programs)} programs", details=details)
    error = "\n".join(f"{name}: {line}" for name, outcome in wrong.items() for line in outcome.error.splitlines())
    details["repeat"] = next(iter(wrong.values())).details.get("repeat")
    return Outcome(False, f"{len(programs) - len(wrong)} of {len(programs)} programs", error=error, details=details)


def reported(done):
    """The JSON object that a benchmark prints last."""
    return (json_lines(done.out) or [None])[-1] if done.code == 0 else None


def turn(context, side, precision, *more):
    """One turn of a side of the benchmark; what it found is kept for the comparison."""
    sizes = SMALL if context.device == "cpu" else ["--precision", precision, *TURN]
    program = ["./bench", "gpu-step"] if side == "ours" else [PYTHON, "torch_gpu.py"]
    done = context.run([*program, "--device", context.device, *sizes, *more], 120)
    found = reported(done)
    if found is not None:
        context.turns.setdefault(f"{side}/{precision}", []).append(found)
    return done, found


def milliseconds(context, key):
    return statistics.median(found["step_ms"] for found in context.turns[key])


def beside_pytorch(context, precision):
    """Ours and PyTorch's eager steps in turns: time, phases, and memory."""
    for number in range(TURNS if context.device != "cpu" else 1):
        kernels = ["--kernels"] if number == 0 and context.device != "cpu" and precision == "bf16" else []
        done, found = turn(context, "ours", precision, *kernels)
        if found is None:
            return failed(done, repeat=context.ours(done))
        done, found = turn(context, "torch", precision)
        if found is None and context.device != "cpu":
            return failed(done)
    ours, torch = f"ours/{precision}", f"torch/{precision}"
    figure = f"ours {milliseconds(context, ours):.2f} ms"
    details = {key: context.turns.get(key) for key in (ours, torch)}
    if torch not in context.turns:
        return Outcome(True, figure, details=details, error="no PyTorch here")
    figure = f"{figure}, PyTorch {milliseconds(context, torch):.2f} ms"
    slower = milliseconds(context, ours) > milliseconds(context, torch)
    gib = {key: max(found["peak_memory_bytes"] or 0 for found in context.turns[key]) / 2**30 for key in (ours, torch)}
    larger = gib[ours] > gib[torch]
    told = [f"{phase} {ms:.2f} (PyTorch {context.turns[torch][0]['phases_ms'][phase]:.2f})" for phase, ms in context.turns[ours][0]["phases_ms"].items()]
    if context.device == "cpu":
        return Outcome(True, figure, details=details)
    error = f"{'slower than PyTorch; ' if slower else ''}{'more memory; ' if larger else ''}memory {gib[ours]:.1f} and {gib[torch]:.1f} GiB; " + ", ".join(told)
    return Outcome(not slower and not larger, figure, "<= PyTorch's", error, details)


def another_way(context, name, *words):
    """A step done otherwise, beside the told one of before."""
    done, found = turn(context, "ours", "bf16", *words)
    if found is None:
        return failed(done, repeat=context.ours(done))
    context.turns[f"ours/{name}"] = [context.turns["ours/bf16"].pop()]
    told = f" (told {milliseconds(context, 'ours/bf16'):.2f})" if context.turns.get("ours/bf16") else ""
    return Outcome(True, f"{found['step_ms']:.2f} ms{told}", details=found)


def convolutions(context):
    """Six large convolutions by each of our ways to cuDNN and by PyTorch: the figure decides `auto`."""
    words = ["--device", context.device, "--precision", "bf16"]
    ours = context.run(["./bench", "gpu-conv", *words], 60)
    if reported(ours) is None:
        return failed(ours, repeat=["./bench", "gpu-conv", *words])
    torch = context.run([PYTHON, "torch_gpu_conv.py", *words], 60)
    if reported(torch) is None:
        return failed(torch, ours=reported(ours))
    rows = [{**a, **b} for a, b in zip(reported(ours)["convolutions"], reported(torch)["convolutions"])]
    ways = ["legacy", "graph", "torch"]
    errors = [f"{row['name']} {row['direction']} by {way}: {row[way]['error']}" for row in rows for way in ways if "error" in row[way]]
    whole = [row for row in rows if all("ms" in row[way] for way in ways)]
    sums = ", ".join(f"{way} {sum(row[way]['ms'] for row in whole):.2f}" for way in ways)
    details = {"ours": reported(ours), "torch": reported(torch), "rows": rows}
    return Outcome(not errors, f"{sums} ms in {len(whole)}", error="\n".join(errors), details=details)


def interrupted(context, precision):
    """A run that is stopped in the middle and goes on, beside one that goes on from its first checkpoint.

    Both end with the same tensors. Two runs from the start might not: each measures the algorithms of its
    convolutions, and a checkpoint names those that were chosen.
    """
    sets = [f"run.steps={STEPS}", f"run.precision={precision}", "evaluate.at_end=false", "monitor.knn_every_steps=0"]
    sets += ["log.every_steps=5", "checkpoint.every_steps=10", f"checkpoint.keep={STEPS}"]
    sets += ["optim.batch_size=4"] if context.device == "cpu" else []
    cut = fresh(f"cut-{precision}")
    words = [word for pair in sets for word in ("--set", pair)]
    command = [*context.with_cuda, "./pretrain", CONFIG, "--name", cut.name, *words, "--device", context.device]
    metrics = cut / "metrics.jsonl"
    program = subprocess.Popen(command, cwd=HERE, env={**os.environ, "PYTHON": PYTHON}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while program.poll() is None and time.time() < context.part_ends - 20:
        if metrics.exists() and metrics.read_text().count("\n") >= 8:
            program.send_signal(signal.SIGTERM)
            break
        time.sleep(0.01)
    try:
        err, code = program.communicate(timeout=20)[1], program.returncode
    except subprocess.TimeoutExpired:
        program.kill()
        err, code = program.communicate()[1], "timeout"
    # 75: it was stopped on request, in the middle.
    if code != 75:
        return Outcome(False, error=f"exit code {code} and not 75: {first_error(err)}", details={"err": err[-8000:]})
    whole = at_first_checkpoint(cut, f"whole-{precision}")
    for folder in (whole, cut):
        done = context.run(["./pretrain", "--resume", folder.name, "--device", context.device], 90)
        if done.code != 0:
            return failed(done)
    return same_tensors(whole, cut)


def same_tensors(a, b):
    different = differences(a, b)
    count = f"{len(checkpoints(a))} checkpoints"
    if not different:
        return Outcome(True, f"equal bits, {count}", "equal bits")
    return Outcome(False, f"{len(different)} tensors differ", "equal bits", f"{different[0]} differs", {"different": different})


def repeated(context, precision):
    """A run that goes on by repeating a recorded step ends as the one that was told each."""
    whole = HERE / "runs" / f"whole-{precision}"
    if not whole.is_dir():
        return Outcome(False, error=f"resume/{precision} left no run to go on from")
    copy = at_first_checkpoint(whole, f"repeated-{precision}")
    done = context.run(["./pretrain", "--resume", copy.name, "--set", "run.cuda_graph=true", "--device", context.device], 90)
    return failed(done) if done.code != 0 else same_tensors(whole, copy)


def finished_on_gpu(context):
    """Views finished on the GPU: the first loss is that of views finished on the CPU; images_on_gpu tests their bits."""
    sets = ["run.steps=10", "evaluate.at_end=false", "monitor.knn_every_steps=0", "augment.fidelity=exact", "log.every_steps=1"]
    words = [word for pair in sets for word in ("--set", pair)]
    losses = []
    for place in ("cpu", "gpu"):
        folder = fresh(f"finish-{place}")
        done = context.run(["./pretrain", CONFIG, "--name", folder.name, *words, "--set", f"augment.finish_on={place}", "--device", context.device], 60)
        if done.code != 0:
            return failed(done)
        losses.append(json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])["loss"])
    apart = abs(losses[0] / losses[1] - 1)
    return Outcome(apart < 1e-4, f"losses {apart:.1e} apart", "< 1e-4", "" if apart < 1e-4 else f"{losses}")


def fed(context):
    done, found = turn(context, "ours", "bf16", "--feed", "--decoders", str(max(1, (os.cpu_count() or 2) - 2)))
    if found is None:
        return failed(done)
    if context.device != "cpu":
        context.turns["ours/bf16"].pop()
    share = found["feed"]["share"]
    enough = share >= 0.95 or context.device == "cpu"
    bar = ">= 95 %" if context.device != "cpu" else ""
    return Outcome(enough, f"{100 * share:.1f} % of the pure rate", bar, "" if enough else json.dumps(found["feed"]), found)


def curve(context, precision):
    steps = ["--steps", "3"] if context.device == "cpu" else []
    words = ["--device", context.device, "--precision", precision, *steps, "--", *context.with_cuda, "./step"]
    done = context.run([PYTHON, "gpu_curve.py", *words], 150)
    found = (json_lines(done.out) or [None])[-1]
    if found is None:
        return failed(done)
    figure, bar = f"{found['distance']:.4f} from the mean", f"<= {found['allowed']:.4f}"
    passed = found["passed"] or context.device == "cpu"
    return Outcome(passed, figure, bar, "" if passed else "farther from PyTorch's mean than its own runs allow", found)


def compiled(context):
    done, found = turn(context, "torch", "bf16", "--compile")
    if found is None:
        return failed(done)
    context.turns["torch/compile"] = [context.turns["torch/bf16"].pop()]
    best = min(milliseconds(context, key) for key in context.turns if key.startswith("ours/") and key != "ours/tf32")
    return Outcome(True, f"{found['step_ms']:.2f} ms, ours {best:.2f}", "goal: ours <=", "" if best <= found["step_ms"] else "the goal is missed", found)


def all_parts(device):
    on_gpu = device != "cpu"
    gpu = lambda work: work if on_gpu else needs_a_gpu
    torch = lambda work: work if on_gpu or has_pytorch() else lambda _context: Outcome(None, error="no PyTorch here")
    emulated = sorted(path.name for path in (HERE / "tests").glob("emulated*")) + ["images_on_gpu"]
    emulated = [name for name in emulated if name != "emulated_step" and (HERE / "tests" / name).exists()]
    parity = ["on_device"] if on_gpu else ["resnet18_fc_f32", "resnet18_mlp_f32"]
    parts = [
        Part("machine", 45, machine),
        Part("items", 60, items),
        Part("step/parity", 60, lambda c: tests(c, "step_parity", parity)),
        Part("step/bf16", 60, gpu(lambda c: tests(c, "emulated_step", ["bf16_rounds", "a_queue_of_bf16"]))),
        Part("tests/convolutions", 60, gpu(lambda c: tests(c, "device_convolutions", threads=2))),
        Part("bench/bf16", 130, lambda c: beside_pytorch(c, "bf16")),
        Part("bench/graph", 40, gpu(lambda c: another_way(c, "graph", "--cuda-graph"))),
        Part("bench/convolutions", 90, gpu(convolutions)),
        Part("bench/tf32", 90, gpu(lambda c: beside_pytorch(c, "tf32"))),
        Part("tests/emulator", 100, gpu(lambda c: together(c, emulated))),
        Part("tests/step", 60, gpu(lambda c: tests(c, "emulated_step", ["on_device"]))),
        Part("tests/recorded_step", 60, gpu(lambda c: tests(c, "recorded_step"))),
        Part("resume/f32", 90, lambda c: interrupted(c, "f32")),
        Part("graph/f32", 45, gpu(lambda c: repeated(c, "f32"))),
        Part("resume/bf16", 60, gpu(lambda c: interrupted(c, "bf16"))),
        Part("graph/bf16", 45, gpu(lambda c: repeated(c, "bf16"))),
        Part("finish_on", 45, gpu(finished_on_gpu)),
        Part("feed", 60, fed),
        Part("curve/f32", 75, torch(lambda c: curve(c, "f32"))),
        Part("curve/bf16", 75, gpu(lambda c: curve(c, "bf16"))),
        Part("bench/compile", 150, gpu(compiled)),
    ]
    return parts
