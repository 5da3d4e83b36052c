"""The parts of check.py, the most informative per second first."""

import dataclasses
import time

from items import items
from libtest import tests, together
from runs import finished_on_gpu, interrupted, repeated
from sides import another_way, beside_pytorch, compiled, convolutions, curve, fed, reported
from tools import HERE, PYTHON, Outcome, failed, run, telling

# Modules of the test programs for `tests/emulator`. Written down, so that one that is missing is missed.
EMULATED = {
    "ops": [
        "emulated", "emulated_activations", "emulated_batch_norm", "emulated_enqueue", "emulated_images",
        "emulated_info_nce", "emulated_recording", "emulated_rows", "emulated_updates",
    ],
    "across_crates": ["emulated_evaluation", "images_on_gpu"],
}  # fmt: skip
# Of PyTorch or torchvision itself; another one that is missing is a broken installation.
NO_PYTORCH = ("No module named 'torch'", "No module named 'torchvision'")


@dataclasses.dataclass
class Part:
    name: str
    # Seconds that it may take.
    bound: float
    work: object
    # What it needs on a CPU too: "gpu" or "pytorch".
    needs: str = ""
    # The part whose run it continues or whose figures it needs; chosen along with it.
    after: str = ""

    def unfit(self, context):
        """Why this machine has no meaning for it, before any time is spent."""
        if context.device != "cpu":
            return ""
        return "needs a GPU" if self.needs == "gpu" else context.no_pytorch() if self.needs == "pytorch" else ""


class Context:
    """What parts know of the machine and of each other."""

    def __init__(self, device, ends, factor=1.0):
        self.device, self.ends, self.part_ends, self.factor = device, ends, ends, factor
        self.with_cuda = [] if device == "cpu" else [str(HERE / "with-cuda")]
        self.folder, self.ceilings, self.turns, self.wholes = HERE, None, {}, {}
        self.lacking, self.no_time = None, set()

    def left(self):
        return self.ends - time.time()

    def take_over(self, rows):
        """What later parts and the table need of results that an earlier start wrote."""
        found = {name: row.outcome.details for name, row in rows.items()}
        self.ceilings = found.get("machine") if "bytes_per_second" in found.get("machine", {}) else None
        self.turns |= {key: turns for key, turns in found.get("bench/bf16", {}).items() if key == "ours/bf16"}

    def run(self, command, at_most=None, **more):
        """A program of ours, or whatever starts with the interpreter; within the part's bound.

        `at_most` is for what a part can do without.
        """
        start = [] if command[0] == PYTHON else self.with_cuda
        left = self.part_ends - time.time()
        return run([*start, *command], left if at_most is None else min(left, at_most * self.factor), **more)

    def ours(self, done):
        """The words of a program of ours that ran, without what started it."""
        return done.words[len(self.with_cuda) :]

    def kernels(self):
        return next((turn["kernels"] for turn in self.turns.get("ours/bf16", []) if turn.get("kernels")), None)

    def no_pytorch(self):
        """Of a rehearsal: that this Python has no PyTorch. One that is broken has to fail by itself."""
        if self.lacking is None:
            seconds = min(60 * self.factor, self.left())
            done = run([PYTHON, "-c", "import torch, torchvision"], seconds) if self.device == "cpu" else None
            said = telling(done.err) if done and isinstance(done.code, int) and done.code != 0 else ""
            self.lacking = f"no PyTorch here ({said})" if said.endswith(NO_PYTORCH) else ""
        return self.lacking


def machine(context):
    """What this device reaches at most; with what libraries ours will run."""
    done = context.run([PYTHON, "ceilings.py", context.device])
    found = reported(done, "torch", *(() if context.device == "cpu" else ("bytes_per_second", "bf16_flops", "f32_flops")))
    if found is None:
        return failed(done)
    if context.device == "cpu":
        return Outcome(True, f"PyTorch {found['torch']}", details=found)
    context.ceilings = found
    query = "name,driver_version,memory.total,clocks.max.sm,clocks.max.mem"
    asked = context.run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], at_most=20)
    found["nvidia-smi"] = asked.out.strip() or asked.why()
    asked = context.run(["sh", "-c", 'echo "$LD_LIBRARY_PATH"'], at_most=20)
    found["LD_LIBRARY_PATH"] = asked.out.strip()
    figure = f"{found['bytes_per_second'] / 1e12:.2f} TB/s, {found['bf16_flops'] / 1e12:.0f} TFLOP/s"
    return Outcome(True, figure, details=found)


def all_parts(device):
    parity = ["on_device"] if device != "cpu" else ["resnet18_fc_f32", "resnet18_mlp_f32"]
    parity = [f"step_parity::{name}" for name in parity]
    bf16 = ["emulated_step::bf16_rounds", "emulated_step::a_queue_of_bf16"]
    parts = [
        Part("machine", 120, machine, "pytorch"),
        Part("items", 60, items),
        Part("step/parity", 60, lambda c: tests(c, "across_crates", parity)),
        Part("step/bf16", 60, lambda c: tests(c, "across_crates", bf16), "gpu"),
        Part("tests/convolutions", 60, lambda c: tests(c, "ops", ["device_convolutions::"], threads=2), "gpu"),
        # Its kernels are compared with what the device reaches at most.
        Part("bench/bf16", 130, lambda c: beside_pytorch(c, "bf16"), after="machine" if device != "cpu" else ""),
        Part("bench/graph", 40, lambda c: another_way(c, "graph", "--cuda-graph"), "gpu"),
        Part("bench/convolutions", 90, convolutions, "gpu"),
        Part("bench/tf32", 90, lambda c: beside_pytorch(c, "tf32"), "gpu"),
        Part("tests/emulator", 100, lambda c: together(c, EMULATED), "gpu"),
        Part("tests/step", 60, lambda c: tests(c, "across_crates", ["emulated_step::on_device"]), "gpu"),
        Part("tests/recorded_step", 60, lambda c: tests(c, "across_crates", ["recorded_step::"]), "gpu"),
        Part("resume/f32", 90, lambda c: interrupted(c, "f32")),
        Part("graph/f32", 45, lambda c: repeated(c, "f32"), "gpu", after="resume/f32"),
        Part("resume/bf16", 60, lambda c: interrupted(c, "bf16"), "gpu"),
        Part("graph/bf16", 45, lambda c: repeated(c, "bf16"), "gpu", after="resume/bf16"),
        Part("finish_on", 45, finished_on_gpu, "gpu"),
        Part("feed", 60, fed),
        Part("curve/f32", 75, lambda c: curve(c, "f32"), "pytorch"),
        Part("curve/bf16", 75, lambda c: curve(c, "bf16"), "gpu"),
        Part("bench/compile", 150, compiled, "gpu"),
    ]
    return parts
