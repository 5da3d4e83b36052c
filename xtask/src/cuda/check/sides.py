"""The parts that time ours against PyTorch."""

import json
import os
import statistics

from tools import PYTHON, Outcome, failed, json_lines

# Turns that each side of the benchmark takes, and what a turn is.
TURNS = 2
TURN = ["--steps", "20", "--blocks", "2", "--warmup", "8"]
# Ours in a rehearsal: bench gpu-step and torch_gpu.py know the same words.
SMALL = ["--precision", "f32", "--size", "64", "--batch-size", "4", "--queue-size", "64", "--steps", "1", "--blocks", "1", "--warmup", "1"]
# What a turn reports at least.
REPORT = ("step_ms", "phases_ms", "peak_memory_bytes")


def reported(done, *keys):
    """The last JSON object with these keys that a benchmark printed, if it ended well."""
    found = [line for line in json_lines(done.out) if all(key in line for key in keys)]
    return found[-1] if found and done.code == 0 else None


def no_report(done, keys):
    return failed(done, f"exit code 0, but no report with {', '.join(keys)}")


def turn(context, side, precision, *more):
    """One turn of a side of the benchmark."""
    sizes = SMALL if context.device == "cpu" else ["--precision", precision, *TURN]
    program = ["./bench", "gpu-step"] if side == "ours" else [PYTHON, "torch_gpu.py"]
    done = context.run([*program, "--device", context.device, *sizes, *more])
    return done, reported(done, *REPORT)


def no_turn(context, side, done):
    outcome = no_report(done, REPORT)
    # The sanitizer is for our kernels.
    if side == "ours":
        outcome.details["repeat"] = context.ours(done)
    return outcome


def milliseconds(turns):
    return statistics.median(found["step_ms"] for found in turns)


def beside_pytorch(context, precision):
    """Ours and PyTorch's eager steps in turns: time, phases, and memory."""
    ours, torch = [], []
    no_pytorch = context.no_pytorch()
    for number in range(TURNS if context.device != "cpu" else 1):
        kernels = ["--kernels"] if number == 0 and context.device != "cpu" and precision == "bf16" else []
        for side, turns, more in (("ours", ours, kernels), ("torch", torch, [])):
            if side == "torch" and no_pytorch:
                continue
            done, found = turn(context, side, precision, *more)
            if found is None:
                outcome = no_turn(context, side, done)
                outcome.details["turns"] = {"ours": ours, "torch": torch}
                return outcome
            turns.append(found)
            context.turns[f"{side}/{precision}"] = turns
    figure = f"ours {milliseconds(ours):.2f} ms"
    details = {f"ours/{precision}": ours, f"torch/{precision}": torch}
    if no_pytorch:
        return Outcome(True, figure, details=details, error=no_pytorch)
    figure = f"{figure}, PyTorch {milliseconds(torch):.2f} ms"
    if context.device == "cpu":
        return Outcome(True, figure, details=details)
    # Asked so that a figure that is no number passes nothing.
    slower = not milliseconds(ours) <= milliseconds(torch)
    gib = [max(found["peak_memory_bytes"] or 0 for found in turns) / 2**30 for turns in (ours, torch)]
    larger = not 0 < gib[0] <= gib[1]
    theirs = torch[0]["phases_ms"]
    phases = [f"{phase} {ms:.2f} (PyTorch {theirs.get(phase, float('nan')):.2f})" for phase, ms in ours[0]["phases_ms"].items()]
    error = f"{'slower than PyTorch; ' if slower else ''}{'more memory; ' if larger else ''}"
    error += f"memory {gib[0]:.1f} and {gib[1]:.1f} GiB; {', '.join(phases)}"
    return Outcome(not slower and not larger, figure, "<= PyTorch's", error, details)


def another_way(context, name, *words):
    """A step done otherwise, compared with the eager one if that was measured."""
    done, found = turn(context, "ours", "bf16", *words)
    if found is None:
        return no_turn(context, "ours", done)
    context.turns[f"ours/{name}"] = [found]
    eager = context.turns.get("ours/bf16")
    beside = f" (eager {milliseconds(eager):.2f})" if eager else ""
    return Outcome(True, f"{found['step_ms']:.2f} ms{beside}", details=found)


def compiled(context):
    """PyTorch's compiled steps compared with the fastest of ours, which are measured here if they were not before."""
    done, found = turn(context, "torch", "bf16", "--compile")
    if found is None:
        return no_turn(context, "torch", done)
    if not any(f"ours/{way}" in context.turns for way in ("bf16", "graph")):
        done, own = turn(context, "ours", "bf16")
        if own is None:
            return no_turn(context, "ours", done)
        context.turns["ours/bf16"] = [own]
    best = min(milliseconds(context.turns[key]) for key in ("ours/bf16", "ours/graph") if key in context.turns)
    error = "" if best <= found["step_ms"] else "the goal is missed"
    return Outcome(True, f"{found['step_ms']:.2f} ms, ours {best:.2f}", "goal: ours <=", error, found)


def fed(context):
    """Steps on images that come through the pipeline."""
    done, found = turn(context, "ours", "bf16", "--feed", "--decoders", str(max(1, (os.cpu_count() or 2) - 2)))
    share = (found or {}).get("feed", {}).get("share")
    if share is None:
        outcome = no_report(done, [*REPORT, "feed.share"])
        outcome.details["repeat"] = context.ours(done)
        return outcome
    enough = share >= 0.95 or context.device == "cpu"
    bar = ">= 95 %" if context.device != "cpu" else ""
    return Outcome(enough, f"{100 * share:.1f} % of the pure rate", bar, "" if enough else json.dumps(found["feed"]), found)


def convolutions(context):
    """Six large convolutions by each of our ways to cuDNN and by PyTorch: the figure decides `auto`."""
    words = ["--device", context.device, "--precision", "bf16"]
    done = context.run(["./bench", "gpu-conv", *words])
    ours = reported(done, "convolutions")
    if ours is None:
        outcome = no_report(done, ["convolutions"])
        outcome.details["repeat"] = context.ours(done)
        return outcome
    done = context.run([PYTHON, "torch_gpu_conv.py", *words])
    torch = reported(done, "convolutions")
    if torch is None:
        outcome = no_report(done, ["convolutions"])
        outcome.details["ours"] = ours
        return outcome
    rows = [{**a, **b} for a, b in zip(ours["convolutions"], torch["convolutions"])]
    ways = ["legacy", "graph", "torch"]
    errors = [f"{row['name']} {row['direction']} by {way}: {row[way]['error']}" for row in rows for way in ways if "error" in row[way]]
    whole = [row for row in rows if all("ms" in row[way] for way in ways)]
    sums = ", ".join(f"{way} {sum(row[way]['ms'] for row in whole):.2f}" for way in ways)
    details = {"ours": ours, "torch": torch, "rows": rows}
    counts = [len(ours["convolutions"]), len(torch["convolutions"])]
    if counts[0] != counts[1] or not rows:
        errors.append(f"{counts[0]} convolutions of ours and {counts[1]} of PyTorch's")
    return Outcome(not errors, f"{sums} ms in {len(whole)}", error="\n".join(errors), details=details)


def curve(context, precision):
    """Losses compared with those of PyTorch from nearly the same weights. The script's exit code is its verdict."""
    steps = ["--steps", "3"] if context.device == "cpu" else []
    words = ["--device", context.device, "--precision", precision, *steps, "--", *context.with_cuda, "./step"]
    done = context.run([PYTHON, "gpu_curve.py", *words])
    keys = ("distance", "allowed", "passed")
    found = [line for line in json_lines(done.out) if all(key in line for key in keys)]
    if not found or done.code not in (0, 1):
        return no_report(done, keys)
    found = found[-1]
    figure, bar = f"{found['distance']:.4f} from the mean", f"<= {found['allowed']:.4f}"
    passed = found["passed"] or context.device == "cpu"
    return Outcome(passed, figure, bar, "" if passed else "farther from PyTorch's mean than its own runs allow", found)
