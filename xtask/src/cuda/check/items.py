"""The part `items`: every kernel and library call once, whatever ends the process in between."""

import time

from tools import Outcome, failed, json_lines, libraries


class Found:
    """What the processes reported, compared with the names that were to be reported."""

    def __init__(self, names):
        self.names, self.reports, self.behind = names, {}, []

    def missing(self):
        return [name for name in self.names if name not in self.reports]

    def add(self, done):
        """Takes a process's lines. Gives the last item it came to, None if it came no further than others."""
        lines = json_lines(done.out)
        new = [line for line in lines if "item" in line and line["item"] not in self.reports]
        self.reports |= {line["item"]: line for line in new}
        reached = [line["item"] for line in new]
        begun = [line["begins"] for line in lines if "begins" in line]
        if begun and begun[-1] not in self.reports:
            why = done.why() or "exit code 0 in the middle of it"
            self.reports[begun[-1]] = {"item": begun[-1], "passed": False, "process": why}
            reached.append(begun[-1])
        elif reached and self.ended_behind(done, new):
            self.reports[reached[-1]] |= {"passed": False, "process": done.why()}
        return reached[-1] if reached else None

    def ended_behind(self, done, new):
        """Whether the process or the device was lost, which may show only after the item was compared."""
        explained = any(line.get("passed") is False for line in new) and "is lost after" not in done.err
        return done.code != 0 and not (done.code == 1 and explained)


def items(context):
    """Behind an item that ended the process or the device, a fresh process continues."""
    command = ["./bench", "gpu-items", "--device", context.device]
    listed = context.run([*command, "--list"])
    found = Found(listed.out.split())
    if listed.code != 0 or not found.names:
        return failed(listed, "it lists no item")
    loaded, after, ends = set(), [], []
    while True:
        done = context.run([*command, *after], meanwhile=lambda program: loaded.update(libraries(program.pid)))
        last = found.add(done)
        if not found.missing():
            break
        # A process that came no further would end so again, and again.
        if last is None or time.time() >= context.part_ends:
            ends.append(done.why() or f"exit code 0, but only {len(found.reports)} of {len(found.names)} items")
            break
        found.behind.append(last)
        after = ["--after", last]
    return verdict(context, command, found, done, ends, sorted(loaded))


def verdict(context, command, found, done, ends, loaded):
    reports, missing = found.reports, found.missing()
    left_out = [report for report in reports.values() if "left_out" in report and context.device == "cpu"]
    wrong = [report for report in reports.values() if report not in left_out and report.get("passed") is not True]
    passed = [report for report in reports.values() if report.get("passed") is True]
    figure = f"{len(passed)} of {len(passed) + len(wrong) + len(missing)} items"
    errors = [f"{report['item']}: {report.get('error') or report.get('process') or report.get('left_out') or 'no verdict'}" for report in wrong]
    errors += ends
    if missing:
        errors.append(f"never ran: {', '.join(missing)}")
    if found.behind:
        errors.append(f"fresh processes continued after {', '.join(found.behind)}")
    details = {"items": reports, "never_ran": missing, "libraries": loaded}
    if passed and not wrong and not missing and not ends and done.code == 0:
        return Outcome(True, figure, details=details)
    errors = errors or [done.why() or "it did nothing"]
    first = wrong[0]["item"] if wrong else (missing or found.names)[0]
    details |= {"command": done.command(), "err": done.err[-8000:], "repeat": [*command, "--only", first]}
    return Outcome(False, figure, error="\n".join(errors), details=details)
