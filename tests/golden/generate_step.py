"""Golden files of two MoCo training steps: step/<case>.<float32|float64>.safetensors. See README.md.

usage: generate_step.py            write every file and print how far torch's f32 is from its f64
       generate_step.py --search   print, for each case, the first seeds that stay clear of the kinks
"""
import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import dataclasses  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import pathlib  # noqa: E402
import sys  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402

from formulas import N_PROBES, N_SAMPLES, fingerprint, write  # noqa: E402
from reference import Case, KinkMargin, Trainer  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "step"
SOURCES = [HERE / name for name in ("formulas.py", "reference.py", "generate_step.py")]

IMAGENET = {"stem": "imagenet", "symmetric": False, "batch_size": 8}
CASES = [
    Case("resnet18.fc", "resnet18", "fc", image_size=64, temperature=0.07, seed=5, **IMAGENET),
    Case("resnet18.mlp", "resnet18", "mlp", image_size=64, temperature=0.2, seed=1, **IMAGENET),
    Case("resnet50.fc", "resnet50", "fc", image_size=48, temperature=0.07, seed=4, **IMAGENET),
    Case("resnet50.mlp", "resnet50", "mlp", image_size=48, temperature=0.2, seed=4, **IMAGENET),
    Case("resnet18-cifar.fc.symmetric", "resnet18", "fc", "cifar", True, 32, 4, temperature=0.07, seed=40),
]

# Smallest KinkMargin a seed may have; f32 rounding moves an activation by about 1e-7 to 1e-6.
MIN_MARGIN = 1e-6


def run(case, stored_as, dtype):
    """Outputs as f64 arrays (integers stay int64), element counts of those that are fingerprints, kink margin."""
    trainer = Trainer(case, stored_as, dtype)
    margin = KinkMargin(trainer.encoder_q)
    out, sizes = {}, {}
    for step in range(len(case.learning_rates)):
        full, large = trainer.step(step)
        for name, tensor in full.items():
            array = tensor.numpy()
            out[f"step{step}.{name}"] = array if array.dtype == np.int64 else array.astype(np.float64)
        for name, tensor in large.items():
            out[f"step{step}.{name}"] = fingerprint(tensor.detach().numpy())
            sizes[f"step{step}.{name}"] = tensor.numel()
    return out, sizes, margin.smallest()


def differences(a, b, n_elements):
    """Relative difference of one output: (whole tensor, worst single element).

    A fingerprint estimates the whole tensor's relative l2 difference from its probe products, because
    E[(e.probe)^2] = |e|^2 / 3. Single elements are measured against the tensor's root mean square.
    """
    if n_elements is None:
        norm, rms = np.linalg.norm(b), np.linalg.norm(b) / np.sqrt(b.size)
        return np.linalg.norm(a - b) / norm, np.abs(a - b).max() / rms
    products, samples = slice(2, 2 + N_PROBES), slice(2 + N_PROBES, None)
    whole = np.sqrt(3.0 * np.mean((a[products] - b[products]) ** 2)) / b[0]
    return whole, np.abs(a[samples] - b[samples]).max() / (b[0] / np.sqrt(n_elements))


def tensor_class(name):
    """`step0.grad.conv1.weight` -> `step0.grad`; running statistics are a class of their own."""
    step, kind, *rest = name.split(".")
    if kind.startswith("direction"):
        return f"{step}.{rest[0]}"
    return f"{step}.{kind}" + (".running" if rest and rest[-1].startswith("running_") else "")


def spread(f32, f64, sizes):
    """Largest differences of each tensor class."""
    worst = {}
    for name, a in f32.items():
        if a.dtype == np.int64:
            continue
        whole, single = differences(a, f64[name], sizes.get(name))
        row = worst.setdefault(tensor_class(name), {"whole": 0.0, "single": 0.0, "at": ""})
        if whole > row["whole"]:
            row["whole"], row["at"] = float(whole), name
        row["single"] = max(row["single"], float(single))
    return worst


def stacked(runs):
    """Outputs of several runs along a new first axis; integers are the same in all."""
    tensors = {}
    for name, first in runs[0].items():
        values = [r[name] for r in runs]
        tensors[name] = first if first.dtype == np.int64 else np.stack(values)
        if first.dtype == np.int64 and not all(np.array_equal(first, v) for v in values):
            raise ValueError(f"{name}: integers differ between runs")
    return tensors


def metadata(case, dtype):
    constants = dataclasses.asdict(case)
    constants["learning_rates"] = json.dumps(case.learning_rates)
    constants["symmetric"] = str(case.symmetric).lower()
    return constants | {
        "dtype": dtype,
        "first_queue_ptr": case.first_queue_ptr(),
        "bn_momentum": 0.1,
        "bn_eps": 1e-5,
        "n_probes": N_PROBES,
        "n_samples": N_SAMPLES,
        "generator": "tests/golden/generate_step.py",
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
    }


def generate(case):
    f64, _, _ = run(case, torch.float64, torch.float64)
    write(OUT / f"{case.name}.float64.safetensors", stacked([f64]), metadata(case, "float64"), SOURCES)
    single, sizes, _ = run(case, torch.float32, torch.float32)
    exact, _, margin = run(case, torch.float32, torch.float64)
    if margin < MIN_MARGIN:
        raise ValueError(f"{case.name}: kink margin {margin:.1e} of seed {case.seed} is below {MIN_MARGIN:.0e}")
    worst = spread(single, exact, sizes)
    extra = {"kink_margin": f"{margin:.2e}", "torch_f32_error": json.dumps(worst, sort_keys=True)}
    path = OUT / f"{case.name}.float32.safetensors"
    write(path, stacked([single, exact]), metadata(case, "float32") | extra, SOURCES)
    print(f"{case.name}  seed {case.seed}  kink margin {margin:.1e}  losses", *(f64[f"step{s}.loss"] for s in (0, 1)))
    for name, row in sorted(worst.items()):
        print(f"    {name:28} whole {row['whole']:.1e}  single {row['single']:.1e}  {row['at']}", flush=True)


def search(case, n_wanted=1, n_tried=400):
    """Seeds whose margin suffices, with step 0 alone tried first."""
    found = 0
    for seed in itertools.islice(itertools.count(1), n_tried):
        trainer = Trainer(dataclasses.replace(case, seed=seed), torch.float32, torch.float64)
        margin = KinkMargin(trainer.encoder_q)
        for step in range(len(case.learning_rates)):
            trainer.step(step)
            if margin.smallest() < MIN_MARGIN:
                break
        else:
            found += 1
            print(f"{case.name}: seed {seed}, kink margin {margin.smallest():.2e}", flush=True)
            if found == n_wanted:
                return


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    OUT.mkdir(exist_ok=True)
    for case in CASES:
        if "--search" in sys.argv:
            search(case)
        else:
            generate(case)


if __name__ == "__main__":
    main()
