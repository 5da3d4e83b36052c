"""What the parts of check.py share: programs that end in time whatever they do, and what they said."""

import dataclasses
import itertools
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
# What is kept in memory of a stream, and of that in the results.
MOST_KEPT, MOST_OUT, MOST_ERR = 64 << 20, 30_000, 20_000
# Seconds that a killed program has to disappear, and an ended one's children to let go of its output.
GRACE = 2
# The libraries that ours and PyTorch's programs have in common; equal versions make times comparable.
LIBRARY = re.compile(r"/lib(?:cublas|cublasLt|cuda|cudart|cudnn|curand|nccl|nvrtc)[\w-]*\.so[.\d]*$")


def interpreter():
    """PYTHON as an absolute path, since programs start in another folder than this one; None if it is none."""
    found = shutil.which(os.environ.get("PYTHON") or sys.executable)
    return os.path.abspath(found) if found else None


PYTHON = interpreter()
# Marks the programs of this process, each by a number more.
MARK, OWN_MARK, NUMBERS = "GPU_CHECK_PROGRAM", f"{os.getpid()}-{time.time_ns()}-", itertools.count()


class Stop:
    """Whether a signal asked check.py to end. Programs are killed at once, and no other one starts.

    The handler raises nothing, so no line of a part is left half done; repeated signals change nothing, since
    `timeout` sends two.
    """

    by = ""
    running: dict = {}

    @classmethod
    def on_signals(cls):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            # nohup wants a lost terminal to be ignored.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, cls.handle)

    @classmethod
    def handle(cls, number, _frame):
        cls.by = cls.by or signal.Signals(number).name
        for mark in list(cls.running):
            kill_marked(mark)


@dataclasses.dataclass
class Done:
    """A program that ended: its exit code, or why it has none: timeout, not started, no time, stopped."""

    words: list
    code: object
    seconds: float = 0.0
    out: str = ""
    err: str = ""
    # What of it could not be ended.
    left: str = ""

    def command(self):
        return shlex.join(self.words)

    def why(self):
        """Why it did not end well, in a line; None if it did."""
        if self.code == 0:
            return None
        # Reports are no messages.
        words = "\n".join(line for line in self.out.splitlines() if not line.startswith("{"))
        said = telling(self.err) or telling(words) or "it said nothing"
        if self.code == "timeout":
            return f"not done after {self.seconds:.0f} s{self.left}"
        if self.code == "no time":
            return "not started: the part's time was over"
        if self.code == "not started":
            return f"did not start: {self.err}"
        if self.code == "stopped":
            return "check.py was stopped"
        return f"ended by {signal_name(-self.code)}; {said}" if self.code < 0 else f"exit code {self.code}: {said}"


@dataclasses.dataclass
class Outcome:
    """What a part found. `passed` is None where a machine has no meaning for it."""

    passed: object
    figure: str = ""
    bar: str = ""
    error: str = ""
    details: dict = dataclasses.field(default_factory=dict)


def failed(done, otherwise="exit code 0, but no report", **details):
    """The outcome of a program that did not end well, or ended well without what it was started for."""
    details = {"command": done.command(), "out": done.out[-4000:], "err": done.err[-MOST_ERR:], **details}
    return Outcome(False, error=done.why() or otherwise, details=details)


def signal_name(number):
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def raised(lines):
    """The exception of the last traceback; one that Python ignored is none."""
    headers = [i for i, line in enumerate(lines) if line.strip() == "Traceback (most recent call last):"]
    headers = [i for i in headers if i == 0 or not lines[i - 1].lstrip().startswith("Exception ignored")]
    for i in headers[-1:]:
        depth = len(lines[i]) - len(lines[i].lstrip())
        for line in lines[i + 1 :]:
            if line.strip() and len(line) - len(line.lstrip()) <= depth:
                return line.strip()
    return ""


def panicked(lines):
    """The message of the first panic of a Rust program, with the two sides of an assertion."""
    at = next((i for i, line in enumerate(lines) if "panicked at" in line), None)
    if at is None:
        return ""
    message = [line.strip() for line in lines[at + 1 : at + 4] if line.strip()]
    sides = [line for line in message[1:] if line.startswith(("left:", "right:"))]
    return "; ".join(message[:1] + sides)


def telling(text):
    """The line that says what went wrong: warnings and the command often come before it, help after it."""
    lines = text.splitlines()
    errors = [line.strip() for line in lines if line.lower().startswith("error:")]
    others = [line.strip() for line in lines if line.strip()]
    others = [line for line in others if not line.startswith(("note:", "warnings.warn(")) and "Warning: " not in line] or others
    return raised(lines) or (errors or [""])[0] or panicked(lines) or (others or [""])[-1]


def marked(mark):
    """The processes with this mark in their environments, which children inherit whatever session they are in."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def kill_marked(mark):
    """Ends a program with all that it started: what is left of it would keep the GPU's memory.

    Several times, since a process may start another one before its end; one that does not die is left.
    """
    for _ in range(50):
        found = marked(mark)
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        if not found:
            return
        time.sleep(0.01)


def guard():
    """Starts a process that ends every program of this one when this one is gone, by `kill -9` too."""
    words = [sys.executable, "-c", "import sys, tools; sys.stdin.read(); tools.kill_marked(sys.argv[1])", OWN_MARK]
    quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    # It waits for the end of its input, which comes when nobody holds the other end.
    return subprocess.Popen(words, cwd=HERE, start_new_session=True, **quiet)


class Reader(threading.Thread):
    """The end of a stream. A thread, since a process that a program left behind may never close it."""

    def __init__(self, stream):
        super().__init__(daemon=True)
        self.stream, self.kept = stream, bytearray()
        self.start()

    def run(self):
        with self.stream:
            while chunk := self.stream.read1(1 << 16):
                self.kept += chunk
                if len(self.kept) > 2 * MOST_KEPT:
                    del self.kept[:-MOST_KEPT]

    def text(self):
        return bytes(self.kept).decode(errors="replace")


def wait(program, ends, meanwhile=None):
    """Whether the program ended by then, and before check.py was stopped."""
    while True:
        try:
            program.wait(max(0.0, min(0.05 if meanwhile else 0.2, ends - time.monotonic())))
            return True
        except subprocess.TimeoutExpired:
            if Stop.by or time.monotonic() >= ends:
                return False
        if meanwhile:
            meanwhile(program)


def run(command, seconds, meanwhile=None, **environment):
    """Runs a program in a session of its own. Returns soon after `seconds`, whatever the program does.

    `meanwhile` is called with the process many times a second.
    """
    words = [str(word) for word in command]
    if Stop.by or seconds <= 0:
        return Done(words, "stopped" if Stop.by else "no time")
    began = time.monotonic()
    # Ends with a letter, so that no mark begins another one.
    mark = f"{OWN_MARK}{next(NUMBERS)}x"
    environment = {**os.environ, "PYTHON": PYTHON, "RUST_BACKTRACE": "0", MARK: mark, **environment}
    try:
        program = subprocess.Popen(
            words, cwd=HERE, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return Done(words, "not started", err=str(error))
    Stop.running[mark] = program
    try:
        out, err = Reader(program.stdout), Reader(program.stderr)
        in_time = wait(program, began + seconds, meanwhile)
        elapsed = time.monotonic() - began
        # What an ended program left behind would hold its output open.
        kill_marked(mark)
        if not in_time:
            # Without a limit, a process that hangs in the driver would hang this one.
            wait(program, time.monotonic() + GRACE)
        for reader in (out, err):
            reader.join(GRACE / 2)
    finally:
        kill_marked(mark)
        Stop.running.pop(mark, None)
    left = f"; process {program.pid} is there {GRACE} s after SIGKILL" if program.returncode is None else ""
    code = "stopped" if Stop.by else program.returncode if in_time else "timeout"
    return Done(words, code, round(elapsed, 2), out.text(), err.text(), left)


def json_lines(text):
    found = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def libraries(pid="self"):
    """The CUDA libraries that a process has loaded."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    paths = {line.split(None, 5)[-1] for line in lines}
    return {path for path in paths if LIBRARY.search(path)}


def tensors(path):
    """The bytes of each tensor of a safetensors file; metadata left out, which holds seconds."""
    data = pathlib.Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    body = data[8 + size :]
    return {name: body[slice(*entry["data_offsets"])] for name, entry in header.items() if name != "__metadata__"}


def fresh(run_name):
    """The folder of a run, without what an earlier start left there."""
    folder = HERE / "runs" / run_name
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def checkpoints(run_folder):
    return sorted((pathlib.Path(run_folder) / "checkpoints").glob("step-*.safetensors"))


def differences(a, b):
    """Names of the tensors that differ in the last checkpoints of two runs."""
    a, b = (tensors(checkpoints(folder)[-1]) for folder in (a, b))
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def at_first_checkpoint(run_folder, name):
    """A copy of a run as it was when it had saved once."""
    copy = fresh(name)
    shutil.copytree(run_folder, copy)
    for later in checkpoints(copy)[1:]:
        later.unlink()
    return copy
