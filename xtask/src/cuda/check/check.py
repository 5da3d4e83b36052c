#!/usr/bin/env python3
"""Proves the programs beside it on the first GPU of this machine, in the order of what tells most a second.

Needs an NVIDIA driver from 580 on and a Python with PyTorch for CUDA 13 and torchvision (name it by
PYTHON=...). Each part writes its result to results.json at once; a part is started only if its bound fits
into the time left, and a part that fails is done once more with what tells why (report.py). The table at the
end has a line for each part. Exit code: 0 all passed, 1 something failed, 2 something was not started.

`--device cpu` rehearses what has a meaning there, on 4 images of 64 pixels; what has none, and PyTorch where
this Python has none, is listed as left out.
"""
import argparse
import json
import sys
import time

import parts
import report
from tools import HERE, Outcome


def arguments(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=360, help="starts nothing that may not end by then")
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu to rehearse")
    parser.add_argument("--from", dest="first", default="", metavar="PART", help="begins with this part")
    parser.add_argument("--only", default="", metavar="PREFIX", help="parts whose names begin so")
    parser.add_argument("--bounds", type=float, default=1, metavar="FACTOR", help="multiplies what a part may take")
    parser.add_argument("--list", action="store_true", help="names the parts with their bounds and ends")
    parser.add_argument("--results", default=str(HERE / "results.json"), metavar="FILE")
    return parser.parse_args(words)


def chosen(all_parts, args):
    names = [part.name for part in all_parts]
    if args.first and args.first not in names:
        sys.exit(f"no part `{args.first}`; there are {', '.join(names)}")
    after = names.index(args.first) if args.first else 0
    found = [part for part in all_parts[after:] if part.name.startswith(args.only)]
    if not found:
        sys.exit(f"no part begins with `{args.only}`; there are {', '.join(names)}")
    return found


def attempt(part, context):
    try:
        return part.work(context)
    except Exception as error:  # A part's own fault must not cost the parts behind it.
        return Outcome(False, error=f"check.py itself: {error!r}")


def main():
    args = arguments()
    all_parts = parts.all_parts(args.device)
    for part in all_parts:
        part.bound *= args.bounds
    todo = chosen(all_parts, args)
    if args.list:
        for part in todo:
            print(f"{part.bound:6.0f} s at most  {part.name}")
        return 0
    began = time.time()
    context = parts.Context(args.device, began + args.seconds)
    rows = []
    for part in todo:
        left = context.left()
        if part.bound > left:
            outcome, seconds = Outcome("not started", error=f"needs up to {part.bound:.0f} s, {left:.0f} s are left"), 0.0
        else:
            context.part_ends = time.time() + part.bound
            start = time.time()
            outcome = attempt(part, context)
            if outcome.passed is False:
                report.investigate(outcome, context)
            seconds = time.time() - start
        rows.append(report.Row(part.name, outcome, seconds))
        print(report.line(rows[-1]), flush=True)
        # Written after each part: whatever ends this program, what was found stays.
        with open(args.results, "w") as file:
            json.dump(report.as_json(rows, time.time() - began), file, indent=1)
    print(report.table(rows, context))
    verdicts = [row.outcome.passed for row in rows]
    return 1 if False in verdicts else 2 if "not started" in verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
