"""What the parts of check.py share: programs that end in time, and what they leave behind."""

import dataclasses
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
# What is kept of a program's output.
MOST_OUT, MOST_ERR = 200_000, 20_000


@dataclasses.dataclass
class Done:
    """A program that ended: its exit code, "timeout" or "not started"."""

    command: str
    code: object
    seconds: float
    out: str
    err: str

    def why(self):
        """Why it did not end well, in a line; None if it did."""
        if self.code == 0:
            return None
        if self.code == "timeout":
            return f"not done after {self.seconds:.0f} s"
        if isinstance(self.code, int) and self.code < 0:
            return f"ended by {signal.Signals(-self.code).name}; {first_error(self.err)}"
        return f"exit code {self.code}: {first_error(self.err)}"


@dataclasses.dataclass
class Outcome:
    """What a part found. `passed` is None where a machine has no meaning for it."""

    passed: object
    figure: str = ""
    bar: str = ""
    error: str = ""
    details: dict = dataclasses.field(default_factory=dict)


def first_error(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "panicked" not in line and not line.startswith("note:")]
    return (telling or lines or ["it said nothing"])[0]


def run(command, seconds, **environment):
    """Runs a program in a session of its own, so that all it has started ends with it."""
    began = time.time()
    environment = {**os.environ, "PYTHON": PYTHON, "RUST_BACKTRACE": "0", **environment}
    command = [str(word) for word in command]
    try:
        program = subprocess.Popen(
            command, cwd=HERE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return Done(" ".join(command), "not started", 0.0, "", str(error))
    try:
        out, err = program.communicate(timeout=max(1, seconds))
        code = program.returncode
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        out, err = program.communicate()
        code = "timeout"
    return Done(" ".join(command), code, round(time.time() - began, 2), out[-MOST_OUT:], err[-MOST_ERR:])


def json_lines(text):
    found = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


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
