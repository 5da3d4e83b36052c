"""What check.py reports: the table, the results, and of a part that failed enough to repair it without another try."""

import dataclasses
import json
import math
import os
import pathlib
import re
import shutil
import textwrap

from tools import Outcome, run

# Lines of the table at the end, characters of each, and the slowest kernels in it.
MOST_LINES, MOST_COLUMNS, MOST_KERNELS = 60, 120, 10
# Lines below a part that its error may take.
MOST_WRAPPED = 3
# Seconds that one repetition may take, unless --bounds gives it more.
REPETITION = 40
VERDICTS = {
    True: "ok", False: "FAILED", None: "left out", "not started": "no time", "stopped": "stopped", "cut off": "cut off",
}  # fmt: skip
# What a driver says of memory that a kernel had no right to, and of kernels that stopped.
CRASHES = re.compile(
    r"ILLEGAL_ADDRESS|MISALIGNED|LAUNCH_FAILED|ILLEGAL_INSTRUCTION|HARDWARE_STACK|ended by SIG|the device is lost"
)
CUDNN = re.compile(r"cuDNN|CUDNN")


@dataclasses.dataclass
class Row:
    part: str
    outcome: Outcome
    seconds: float


class Results:
    """The file of the results: always whole, since each version replaces the one before at once."""

    def __init__(self, path):
        self.named, self.path, self.fault, self.kept = path, pathlib.Path(path), "", ""
        self.new = self.path.with_name(self.path.name + ".new") if self.path.name else self.path

    def refused(self):
        """Makes room for the file, or says why nothing can be written there, before anything costs time."""
        if not self.path.name or self.path.is_dir() or self.named.endswith("/"):
            return f"--results `{self.path}` is a folder and no file"
        if self.path.exists() and not self.path.is_file():
            return f"--results `{self.path}` is no ordinary file"
        try:
            self.new.write_text("{}\n")
            self.new.unlink()
            self.kept = self.keep_earlier()
        except OSError as error:
            return f"--results: {error}"
        return ""

    def earlier(self, machine):
        """Rows with a verdict that an earlier start on this machine wrote; or why there are none."""
        try:
            found = json.loads(self.path.read_text())
            other = {key: found.get(key) for key in machine}
            if other != machine:
                return {}, f"{self.path} is of {other}, this start of {machine}: leave out --missing, or name another file by --results"
            rows = {}
            for name, part in found["parts"].items():
                fields = {field.name: part[field.name] for field in dataclasses.fields(Outcome)}
                if fields["passed"] in (True, False, None):
                    rows[name] = Row(name, Outcome(**fields), float(part["seconds"]))
            return rows, ""
        except FileNotFoundError:
            return {}, ""
        except OSError as error:
            return {}, f"--missing: {error}"
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            return {}, f"{self.path} holds no results of check.py ({type(error).__name__}: {error}); leave out --missing"

    def keep_earlier(self):
        """Gives the file of an earlier start a number, so that a second try loses nothing of the first."""
        if not self.path.exists():
            return ""
        number = 1
        while (kept := self.path.with_name(f"{self.path.stem}-{number}{self.path.suffix}")).exists():
            number += 1
        self.path.rename(kept)
        return f"the results of an earlier start are now in {kept}"

    def write(self, found):
        """A fault is kept, to be reported at the end: parts that run are worth more than their file."""
        try:
            with open(self.new, "w") as file:
                json.dump(plain(found), file, indent=1, default=str)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(self.new, self.path)
            self.fault = ""
        except OSError as error:
            self.fault = f"{self.path} lacks what came last: {error}"
            try:
                self.new.unlink(missing_ok=True)
            except OSError:
                pass


def plain(value):
    """Numbers that JSON does not have as text: a strict reader would refuse the whole file."""
    if isinstance(value, dict):
        return {str(key): plain(of) for key, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(of) for of in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def as_json(rows, seconds, **more):
    parts = {row.part: {**dataclasses.asdict(row.outcome), "seconds": round(row.seconds, 2)} for row in rows}
    return {**more, "seconds": round(seconds, 1), "parts": parts}


def cut(text):
    """A line of the table. What it lacks is in the results."""
    text = " ".join(text.split("\n")).rstrip()
    return text if len(text) <= MOST_COLUMNS else f"{text[: MOST_COLUMNS - 3]}..."


def halves(row):
    """What became of a part, and the first line of its error."""
    outcome = row.outcome
    problem = (outcome.error.strip().splitlines() or [""])[0]
    bar = f" (bar {outcome.bar})" if outcome.bar else ""
    figure = f"{outcome.figure}{bar}  " if outcome.figure or bar else ""
    return f"{row.part:20} {VERDICTS[outcome.passed]:8} {row.seconds:6.1f} s  {figure}", problem


def lines(row, most=MOST_WRAPPED):
    """What the table has of a part: a line, and below it what does not fit."""
    start, problem = halves(row)
    if len(start + problem) <= MOST_COLUMNS:
        return [cut(start + problem)]
    indent = {"initial_indent": "    ", "subsequent_indent": "    "}
    return [cut(start), *textwrap.wrap(problem, MOST_COLUMNS, max_lines=most, **indent)]


def table(rows, context, last):
    """At most MOST_LINES: those of each part, only one and those that failed first where there are too many.

    The lines of `last` are whole, since they are to be copied.
    """
    head = f"{'part':20} {'verdict':8} {'seconds':>8}  figure (bar)  first line of the error"
    kernels = slowest(context)
    room = MOST_LINES - len(kernels) - 2 - len(last)
    for most in range(MOST_WRAPPED, 0, -1):
        shown = [line for row in rows for line in lines(row, most)]
        if len(shown) <= room:
            break
    else:
        failed_first = sorted(rows, key=lambda row: row.outcome.passed is not False)
        shown = [cut("".join(halves(row))) for row in (rows if len(rows) <= room else failed_first[:room])]
    counts = {word: sum(VERDICTS[row.outcome.passed] == word for row in rows) for word in VERDICTS.values()}
    total = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return "\n".join([head, *shown, *kernels, total, *last])


def floor_ms(kernel, ceilings):
    """What bytes and products of a kernel take at the ceilings that were measured on this device."""
    moved = kernel["bytes"] / ceilings["bytes_per_second"]
    rate = ceilings["bf16_flops"] if kernel["kernel"].endswith("_bf16") else ceilings["f32_flops"]
    return 1e3 * max(moved, kernel["flops"] / rate)


def slowest(context):
    """Kernels of a step by the milliseconds that they take above their floors."""
    try:
        return ranked(context.kernels(), context.ceilings)
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        return [cut(f"no kernel is compared with its floor: a report of bench or machine is wrong: {type(error).__name__}: {error}")]


def ranked(found, ceilings):
    if found is None:
        return []
    if ceilings is None:
        return ["no kernel is compared with its floor: `machine` measured no ceilings"]
    above = sorted(((kernel["ms"] - floor_ms(kernel, ceilings), kernel) for kernel in found), key=lambda pair: -pair[0])
    if not all(math.isfinite(excess) for excess, _ in above):
        raise ValueError("a figure is no number")
    found_lines = ["kernels of a step, ms above the floor of bytes and products at this device's measured ceilings"]
    for excess, kernel in above[:MOST_KERNELS]:
        floor = kernel["ms"] - excess
        found_lines.append(cut(f"  {excess:7.3f} above {floor:7.3f}: {kernel['calls']:3} x {kernel['kernel']} {kernel['shape']}"))
    return found_lines


def sanitizer():
    """compute-sanitizer, which a machine may have without naming it in PATH."""
    nvcc = shutil.which("nvcc")
    places = [os.path.dirname(os.path.realpath(nvcc))] if nvcc else []
    places += [os.path.join(home, "bin") for home in (os.environ.get("CUDA_HOME"), "/usr/local/cuda") if home]
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=os.pathsep.join(places))


def investigate(outcome, context):
    """One repetition of what crashed or what cuDNN refused, in a fresh process, with diagnostics.

    The kind of failure is looked for in all that was said, not only in the line that the table shows.
    """
    command = outcome.details.get("repeat")
    if not command or context.device == "cpu" or context.left() < 15:
        return
    seconds = min(REPETITION * context.factor, context.left() - 5)
    said = outcome.error + json.dumps(outcome.details, default=str)
    if CRASHES.search(said):
        memory_checked(outcome, context, command, seconds)
    elif CUDNN.search(said):
        log = context.folder / "cudnn.log"
        log.unlink(missing_ok=True)
        run([*context.with_cuda, *command], seconds, CUDNN_LOGLEVEL_DBG="2", CUDNN_LOGDEST_DBG=str(log))
        text = log.read_text(errors="replace") if log.exists() else "cuDNN wrote no log"
        telling = [said for said in text.splitlines() if re.search(r"error|warn|fail|NOT_SUPPORTED|BAD_PARAM", said, re.I)]
        outcome.details["cudnn_log"] = text[-12_000:]
        outcome.error += f"\ncuDNN's log: {(telling or ['nothing of an error'])[0].strip()}"


def memory_checked(outcome, context, command, seconds):
    program = sanitizer()
    if program is None:
        outcome.details["compute-sanitizer"] = ["it is not on this machine's PATH, beside nvcc or in /usr/local/cuda/bin"]
        return
    checker = [program, "--tool", "memcheck", "--print-limit", "1", "--error-exitcode", "9"]
    done = run([*context.with_cuda, *checker, *command], seconds)
    finding = [text for text in done.out.splitlines() if text.startswith("=========")]
    outcome.details["compute-sanitizer"] = finding[:40] or [done.why() or "it found nothing"]
    first = next((text for text in finding if "Invalid" in text or "Error" in text.split(":")[0]), "")
    at = next((text for text in finding if " at " in text), "")
    outcome.error += f"\ncompute-sanitizer: {first.strip('= ')} {at.strip('= ')}".rstrip()
