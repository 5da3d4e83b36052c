"""What check.py tells: the table, and of a part that failed enough to repair it without another try."""

import dataclasses
import json
import os
import re
import time

from tools import Outcome, run

# Lines of the table at the end, and of the slowest kernels in it.
MOST_LINES, MOST_KERNELS = 60, 10
# Seconds that one repetition may take.
REPETITION = 40
VERDICTS = {True: "ok", False: "FAILED", None: "left out", "not started": "no time"}
# What a driver says of memory that a kernel had no right to, and of kernels that stopped.
CRASHES = re.compile(
    r"ILLEGAL_ADDRESS|MISALIGNED|LAUNCH_FAILED|ILLEGAL_INSTRUCTION|HARDWARE_STACK|ended by SIG|the device is lost"
)


@dataclasses.dataclass
class Row:
    part: str
    outcome: Outcome
    seconds: float


def line(row):
    told = row.outcome.error.splitlines()[0] if row.outcome.error else ""
    bar = f" (bar {row.outcome.bar})" if row.outcome.bar else ""
    return f"{VERDICTS[row.outcome.passed]:8} {row.seconds:6.1f} s  {row.part:24} {row.outcome.figure}{bar} {told[:220]}".rstrip()


def as_json(rows, seconds):
    parts = {row.part: {**dataclasses.asdict(row.outcome), "seconds": round(row.seconds, 2)} for row in rows}
    return {"seconds": round(seconds, 1), "parts": parts}


def table(rows, context):
    """At most MOST_LINES: a line for each part, those that failed first where there are too many."""
    lines = [f"{'part':24} {'verdict':8} {'figure':>34} {'bar':>18} {'seconds':>7}  first line of the error"]
    kernels = slowest(context)
    room = MOST_LINES - len(kernels) - 2
    shown = rows if len(rows) <= room else sorted(rows, key=lambda row: row.outcome.passed is not False)[:room]
    for row in shown:
        outcome = row.outcome
        told = outcome.error.splitlines()[0][:160] if outcome.error else ""
        verdict = VERDICTS[outcome.passed]
        lines.append(f"{row.part:24} {verdict:8} {outcome.figure:>34} {outcome.bar:>18} {row.seconds:7.1f}  {told}".rstrip())
    counts = {word: sum(VERDICTS[row.outcome.passed] == word for row in rows) for word in VERDICTS.values()}
    lines += kernels
    lines.append(", ".join(f"{count} {word}" for word, count in counts.items() if count))
    return "\n".join(lines)


def floor_ms(kernel, ceilings):
    """What bytes and products of a kernel take at the ceilings that were measured on this device."""
    moved = kernel["bytes"] / ceilings["bytes_per_second"]
    rate = ceilings["bf16_flops"] if kernel["kernel"].endswith("_bf16") else ceilings["f32_flops"]
    return 1e3 * max(moved, kernel["flops"] / rate)


def slowest(context):
    """Kernels of a step by the milliseconds that they take above their floors."""
    found = context.kernels()
    if found is None or context.ceilings is None:
        return []
    above = sorted(((kernel["ms"] - floor_ms(kernel, context.ceilings), kernel) for kernel in found), key=lambda pair: -pair[0])
    lines = ["kernels of a step, ms above the floor of bytes and products at this device's measured ceilings"]
    for excess, kernel in above[:MOST_KERNELS]:
        lines.append(
            f"  {excess:7.3f} above {kernel['ms'] - excess:7.3f}: {kernel['calls']:3} x {kernel['kernel']} {kernel['shape']}"
        )
    return lines


def investigate(outcome, context):
    """One repetition of what failed, in a fresh process, with what tells most about it."""
    command = outcome.details.get("repeat")
    if not command or context.device == "cpu" or context.left() < 15:
        return
    seconds = min(REPETITION, context.left() - 5)
    if CRASHES.search(outcome.error):
        checker = ["compute-sanitizer", "--tool", "memcheck", "--print-limit", "1", "--error-exitcode", "9"]
        done = run([*context.with_cuda, *checker, *command], seconds)
        finding = [text for text in done.out.splitlines() if text.startswith("=========")]
        outcome.details["compute-sanitizer"] = finding[:40] or [done.why() or "it found nothing"]
        first = next((text for text in finding if "Invalid" in text or "Error" in text.split(":")[0]), "")
        at = next((text for text in finding if " at " in text), "")
        outcome.error += f"\ncompute-sanitizer: {first.strip('= ')} {at.strip('= ')}".rstrip()
    elif "cuDNN" in outcome.error or "CUDNN" in outcome.error:
        log = context.folder / "cudnn.log"
        log.unlink(missing_ok=True)
        run([*context.with_cuda, *command], seconds, CUDNN_LOGLEVEL_DBG="2", CUDNN_LOGDEST_DBG=str(log))
        text = log.read_text(errors="replace") if log.exists() else "cuDNN wrote no log"
        telling = [said for said in text.splitlines() if re.search(r"error|warn|fail|NOT_SUPPORTED|BAD_PARAM", said, re.I)]
        outcome.details["cudnn_log"] = text[-12_000:]
        outcome.error += f"\ncuDNN's log: {(telling or ['nothing of an error'])[0].strip()}"
