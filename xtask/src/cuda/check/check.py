#!/usr/bin/env python3
"""Proves the programs beside it on the first GPU of this machine, the most informative per second first.

Needs an NVIDIA driver from 580 on and a Python with PyTorch for CUDA 13 and torchvision (name it by
PYTHON=...). Each part writes its result to results.json at once; a part is started only if its bound fits
into the time left. What crashed or what cuDNN refused is run once more with diagnostics (report.py). The
table at the end has a line for each part. Exit code: 0 all passed, 1 something failed, 2 something was not
started, an option is wrong, results or output were lost, or another check.py runs here, 75 stopped by Ctrl-C,
SIGQUIT or SIGTERM: programs are killed, results and table stay.

`--device cpu` rehearses what has a meaning there, on 4 images of 64 pixels; what has none, and PyTorch where
this Python has none, is listed as left out.
"""
import argparse
import fcntl
import math
import os
import re
import shlex
import sys
import time
import traceback

import parts
import report
from tools import HERE, PYTHON, Outcome, Stop, fresh, guard

# As the programs beside it, which a signal stops too.
STOPPED = 75


def positive(text):
    number = float(text)
    if not 0 < number <= 1e6:
        raise argparse.ArgumentTypeError(f"`{text}` is no number above 0 and up to 1000000")
    return number


def device(text):
    """The device as the parts name it. Tests take the first one, so that another one is made the first."""
    found = re.fullmatch(r"cpu|cuda:(\d+)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"`{text}` is neither cpu nor cuda:N")
    if found[1] in (None, "0"):
        return text
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if visible and int(found[1]) >= len(visible):
        raise argparse.ArgumentTypeError(f"{text} is not among CUDA_VISIBLE_DEVICES={','.join(visible)}")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[int(found[1])] if visible else found[1]
    return "cuda:0"


def arguments(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=positive, default=360, help="starts nothing that may not end by then (%(default)s)")
    parser.add_argument("--device", type=device, default="cuda:0", help="cuda:N, or cpu to rehearse (%(default)s)")
    parser.add_argument("--from", dest="first", default="", metavar="PART", help="begins with this part (the first)")
    parser.add_argument("--only", default="", metavar="PREFIX", help="parts whose names begin so, and what they need (all)")
    parser.add_argument("--missing", action="store_true", help="only parts without a verdict in FILE, which keeps the others'")
    parser.add_argument("--bounds", type=positive, default=1, metavar="FACTOR", help="multiplies what a part may take (%(default)s)")
    parser.add_argument("--list", action="store_true", help="names the parts with their bounds and ends")
    parser.add_argument("--results", default=str(HERE / "results.json"), metavar="FILE", help="(%(default)s)")
    args = parser.parse_args(words)
    if PYTHON is None and not args.list:
        parser.error(f"PYTHON={os.environ.get('PYTHON')} is no program")
    return args


def chosen(all_parts, args, earlier):
    """The parts that were asked for, and those whose runs they continue."""
    names = [part.name for part in all_parts]
    if args.first and args.first not in names:
        sys.exit(f"no part `{args.first}`; there are {', '.join(names)}")
    after = names.index(args.first) if args.first else 0
    found = [part for part in all_parts[after:] if part.name.startswith(args.only)]
    if not found:
        there = f"from {args.first} on there are" if args.first else "there are"
        sys.exit(f"no part begins with `{args.only}`; {there} {', '.join(names[after:])}")
    found = [part for part in found if not (args.missing and part.name in earlier)]
    needed = {part.after for part in found if not (part.needs == "gpu" and args.device == "cpu")}
    # Its figures are in the results; what a run left is not.
    needed -= {"machine"} & earlier.keys() if args.missing else set()
    return [part for part in all_parts if part in found or part.name in needed]


def attempt(part, context):
    """What a part found. Its own fault, or one of its repetition, must not cost the parts after it."""
    try:
        outcome = part.work(context)
    except Exception as error:
        # What the system refuses, a full disk for instance, is no fault of this script.
        whose = "" if isinstance(error, OSError) else f"check.py itself: {type(error).__name__}: "
        outcome = Outcome(False, error=f"{whose}{error}", details={"traceback": traceback.format_exc()})
    if outcome.passed is True and re.search(r"\b(nan|inf)\b", outcome.figure):
        outcome.passed, outcome.error = False, f"a figure is no number; {outcome.error}".removesuffix("; ")
    if Stop.by:
        outcome.passed, outcome.error = "cut off", f"stopped by {Stop.by}; {outcome.error}"
    elif outcome.passed is False:
        try:
            report.investigate(outcome, context)
        except Exception:
            outcome.details["repetition"] = traceback.format_exc()
    if repeat := outcome.details.get("repeat"):
        outcome.details["repeat"] = shlex.join([*(["./with-cuda"] if context.with_cuda else []), *map(str, repeat)])
    return outcome


def outcome_of(part, context):
    """What became of a part, which may be that it was not even started."""
    unfit = part.unfit(context)
    if unfit:
        return Outcome(None, error=unfit)
    left = context.left()
    if Stop.by:
        return Outcome("stopped", error=f"stopped by {Stop.by}")
    if part.after in context.no_time:
        return Outcome("not started", error=f"needs {part.after}, for which there was no time")
    if part.bound > left:
        return Outcome("not started", error=f"needs up to {part.bound:.0f} s, {left:.0f} s are left")
    context.part_ends = time.time() + part.bound
    say(f"begins: {part.name}, at most {part.bound:.0f} s")
    return attempt(part, context)


class Lost:
    """Why output was lost: a terminal that is gone must not end this program, nor may it pass unnoticed."""

    why = ""


def say(text):
    try:
        print(text, flush=True)
    except OSError as error:
        Lost.why = Lost.why or str(error)
        # What is buffered goes nowhere too, instead of failing once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_output():
    """Makes sure that there is something to print to."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
            Lost.why = Lost.why or f"{name} is closed"
        # What a program said may have letters that the terminal has not.
        getattr(sys, name).reconfigure(errors="replace")


def locked():
    """The lock of this folder, which the kernel releases whatever ends this process; or why there is none."""
    try:
        file = open(HERE / "check.lock", "a+")
    except OSError as error:
        return None, f"cannot write to the folder of check.py: {error}"
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        return None, f"check.py (process {file.read().strip() or 'unknown'}) already runs here"
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file, ""


def exit_code(verdicts, fault):
    if Stop.by:
        return STOPPED
    return 1 if False in verdicts else 2 if "not started" in verdicts or fault or Lost.why else 0


def onward(args, rows, all_parts):
    """The command that continues, if anything is left to do, with time enough for any part of it."""
    left = {row.part for row in rows if row.outcome.passed not in (True, False, None)}
    if not left:
        return ""
    bounds = {part.name: part.bound for part in all_parts}
    least = max(part.bound + bounds.get(part.after, 0) for part in all_parts if part.name in left)
    seconds = max(args.seconds, math.ceil(least) + 5)
    words = [f"PYTHON={os.environ['PYTHON']}"] if os.environ.get("PYTHON") else []
    words += [sys.executable, sys.argv[0], "--missing"]
    given = {"--only": args.only, "--from": args.first, "--seconds": f"{seconds:g}"}
    given |= {"--results": args.results if args.results != str(HERE / "results.json") else ""}
    given |= {"--device": "cpu" if args.device == "cpu" else "", "--bounds": f"{args.bounds:g}" if args.bounds != 1 else ""}
    return shlex.join([*words, *(word for name, value in given.items() if value for word in (name, value))])


def main():
    open_output()
    Stop.on_signals()
    args = arguments()
    all_parts = parts.all_parts(args.device)
    for part in all_parts:
        part.bound *= args.bounds
    results = report.Results(args.results)
    machine = {"device": args.device, "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES")}
    earlier, refused = results.earlier(machine) if args.missing else ({}, "")
    if refused:
        print(refused, file=sys.stderr)
        return 2
    todo = chosen(all_parts, args, earlier)
    if args.list:
        for part in todo:
            say(f"{part.bound:6.0f} s at most  {part.name}")
        return 2 if Lost.why else 0
    lock, refused = locked()
    refused = refused or results.refused()
    if refused:
        print(refused, file=sys.stderr)
        return 2
    guard()
    # Of a start that was killed.
    fresh("gpu-curve-files")
    if results.kept:
        say(results.kept)
    code = check(todo, args, machine, results, earlier, all_parts)
    lock.close()
    return code


def check(todo, args, machine, results, earlier, all_parts):
    """Does the parts and reports them."""
    began = time.time()
    context = parts.Context(args.device, began + args.seconds, args.bounds)
    context.take_over(earlier)
    rows = dict(earlier)
    more = {"arguments": sys.argv[1:], "python": PYTHON, **machine}
    for part in todo:
        # Written before and after each part: whatever ends this program, the results so far stay, and they
        # show what was running.
        results.write(report.as_json(rows.values(), time.time() - began, **more, running=part.name))
        start = time.time()
        rows[part.name] = report.Row(part.name, outcome_of(part, context), time.time() - start)
        if rows[part.name].outcome.passed == "not started":
            context.no_time.add(part.name)
        say("\n".join(report.lines(rows[part.name])))
    rows = [rows[part.name] for part in all_parts if part.name in rows]
    results.write(report.as_json(rows, time.time() - began, **more, stopped_by=Stop.by or None))
    last = [results.fault or f"results: {results.path.resolve()}"]
    if command := onward(args, rows, all_parts):
        last.append(f"to continue: {command}")
    say(report.table(rows, context, last))
    if Lost.why:
        print(f"output was lost: {Lost.why}; the results are in {results.path.resolve()}", file=sys.stderr)
    if results.fault:
        print(results.fault, file=sys.stderr)
    return exit_code([row.outcome.passed for row in rows], results.fault)


if __name__ == "__main__":
    sys.exit(main())
