#!/usr/bin/env python3
"""Proves the programs beside it on the first GPU of this machine, the most informative per second first.

Needs an NVIDIA driver from 580 on and a Python with PyTorch for CUDA 13 and torchvision (name it by
PYTHON=...). Each part writes its result to results.json at once; a part is started only if its bound fits
into the time left. What crashed or what cuDNN refused is run once more with diagnostics (report.py). The
table at the end has a line for each part. Exit code: 0 all passed, 1 something failed, 2 something was not
started or an option is wrong, 75 stopped by Ctrl-C or SIGTERM: programs are killed, results and table stay.

`--device cpu` rehearses what has a meaning there, on 4 images of 64 pixels; what has none, and PyTorch where
this Python has none, is listed as left out.
"""
import argparse
import math
import os
import re
import sys
import time
import traceback

import parts
import report
from tools import HERE, PYTHON, Outcome, Stop

# As the programs beside it, which a signal stops too.
STOPPED = 75


def positive(text):
    number = float(text)
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"`{text}` is no number above 0")
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
    parser.add_argument("--seconds", type=positive, default=360, help="starts nothing that may not end by then")
    parser.add_argument("--device", type=device, default="cuda:0", help="cuda:N, or cpu to rehearse")
    parser.add_argument("--from", dest="first", default="", metavar="PART", help="begins with this part")
    parser.add_argument("--only", default="", metavar="PREFIX", help="parts whose names begin so, and what they need")
    parser.add_argument("--bounds", type=positive, default=1, metavar="FACTOR", help="multiplies what a part may take")
    parser.add_argument("--list", action="store_true", help="names the parts with their bounds and ends")
    parser.add_argument("--results", default=str(HERE / "results.json"), metavar="FILE")
    args = parser.parse_args(words)
    if PYTHON is None:
        parser.error(f"PYTHON={os.environ.get('PYTHON')} is no program")
    return args


def chosen(all_parts, args):
    """The parts that were asked for, and those whose runs they continue."""
    names = [part.name for part in all_parts]
    if args.first and args.first not in names:
        sys.exit(f"no part `{args.first}`; there are {', '.join(names)}")
    after = names.index(args.first) if args.first else 0
    found = [part for part in all_parts[after:] if part.name.startswith(args.only)]
    if not found:
        sys.exit(f"no part begins with `{args.only}`; there are {', '.join(names)}")
    needed = {part.after for part in found if not (part.needs == "gpu" and args.device == "cpu")}
    return [part for part in all_parts if part in found or part.name in needed]


def attempt(part, context):
    """What a part found. Its own fault, or one of its repetition, must not cost the parts after it."""
    try:
        outcome = part.work(context)
    except Exception as error:
        outcome = Outcome(False, error=f"check.py itself: {error!r}", details={"traceback": traceback.format_exc()})
    if Stop.by:
        outcome.passed, outcome.error = "cut off", f"stopped by {Stop.by}; {outcome.error}"
    elif outcome.passed is False:
        try:
            report.investigate(outcome, context)
        except Exception:
            outcome.details["repetition"] = traceback.format_exc()
    return outcome


def outcome_of(part, context):
    """What became of a part, which may be that it was not even started."""
    unfit = part.unfit(context)
    if unfit:
        return Outcome(None, error=unfit)
    left = context.left()
    if Stop.by:
        return Outcome("not started", error=f"stopped by {Stop.by}")
    if part.bound > left:
        return Outcome("not started", error=f"needs up to {part.bound:.0f} s, {left:.0f} s are left")
    context.part_ends = time.time() + part.bound
    return attempt(part, context)


def say(text):
    """Prints. A terminal that is gone must not end this program."""
    try:
        print(text, flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")


def exit_code(verdicts):
    if Stop.by:
        return STOPPED
    return 1 if False in verdicts else 2 if "not started" in verdicts else 0


def main():
    # What a program said may have letters that the terminal has not.
    sys.stdout.reconfigure(errors="replace")
    args = arguments()
    all_parts = parts.all_parts(args.device)
    for part in all_parts:
        part.bound *= args.bounds
    todo = chosen(all_parts, args)
    if args.list:
        for part in todo:
            say(f"{part.bound:6.0f} s at most  {part.name}")
        return 0
    results = report.Results(args.results)
    if refused := results.refused():
        print(refused, file=sys.stderr)
        return 2
    if results.kept:
        say(results.kept)
    Stop.on_signals()
    began = time.time()
    context = parts.Context(args.device, began + args.seconds, args.bounds)
    rows = []
    more = {"arguments": sys.argv[1:], "python": PYTHON, "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES")}
    for part in todo:
        # Written before and after each part: whatever ends this program, the results so far stay, and they
        # show what was running.
        results.write(report.as_json(rows, time.time() - began, **more, running=part.name))
        start = time.time()
        rows.append(report.Row(part.name, outcome_of(part, context), time.time() - start))
        say("\n".join(report.lines(rows[-1])))
    results.write(report.as_json(rows, time.time() - began, **more, stopped_by=Stop.by or None))
    say(report.table(rows, context))
    if results.fault:
        print(results.fault, file=sys.stderr)
    return exit_code([row.outcome.passed for row in rows])


if __name__ == "__main__":
    sys.exit(main())
