#!/usr/bin/env python3
"""Losses of our steps compared with PyTorch's from the same weights, views and permutations.

PyTorch trains several times, each from weights that differ by a rounding, which shows how far runs of the same
kind drift apart; ours has to stay as near to their mean. Prints one JSON object; the exit code is 0 only if it
does. Called by check.py; `--device cpu --precision f32 --steps 20` tries it out.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys

import torch
import torchvision

DIM, QUEUE, TEMPERATURE, KEY_MOMENTUM = 128, 2048, 0.2, 0.99
LR, SGD_MOMENTUM, WEIGHT_DECAY = 0.03, 0.9, 1e-4
BATCH, SIDE, IMAGES = 32, 64, 512
RUNS = 5
# Of PyTorch's runs: relative noise on the weights, about a rounding of bf16.
NOISE = 2e-3
# How far ours may be from the mean, in units of the farthest of PyTorch's own runs.
ALLOWED = 2.0
# Steps that are averaged: single losses scatter with the batch.
WINDOW = 10


def encoder():
    model = torchvision.models.resnet18(num_classes=DIM)
    hidden = model.fc.weight.shape[1]
    model.fc = torch.nn.Sequential(torch.nn.Linear(hidden, hidden), torch.nn.ReLU(), model.fc)
    return model.train()


def views(n_steps):
    """Two noisy, shifted views of images that are smooth and differ."""
    coarse = torch.randn(IMAGES, 3, 8, 8)
    images = torch.nn.functional.interpolate(coarse, SIDE, mode="bilinear")
    for _ in range(n_steps):
        chosen = images[torch.randperm(IMAGES)[:BATCH]]
        pair = []
        for _ in range(2):
            shift = torch.randint(0, SIDE // 4, (2,)).tolist()
            pair.append(torch.roll(chosen, shift, (2, 3)) + 0.5 * torch.randn(chosen.shape))
        yield *pair, torch.randperm(BATCH)


def pytorch(start, queue, steps, args, noise):
    device = torch.device(args.device)
    query, key = encoder(), encoder()
    query.load_state_dict(start)
    with torch.no_grad():
        for parameter in query.parameters():
            parameter *= 1 + noise * torch.randn(parameter.shape)
    key.load_state_dict(query.state_dict())
    query, key = query.to(device), key.to(device)
    optimizer = torch.optim.SGD(query.parameters(), LR, momentum=SGD_MOMENTUM, weight_decay=WEIGHT_DECAY)
    queue, at, losses = queue.to(device).clone(), 0, []
    normalize = torch.nn.functional.normalize
    for im_q, im_k, shuffle in steps:
        im_q, im_k, shuffle = im_q.to(device), im_k.to(device), shuffle.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16"):
            q = normalize(query(im_q), dim=1)
            with torch.no_grad():
                for k, p in zip(key.parameters(), query.parameters()):
                    k.mul_(KEY_MOMENTUM).add_(p, alpha=1 - KEY_MOMENTUM)
                k = normalize(key(im_k[shuffle]), dim=1)[torch.argsort(shuffle)]
            # As ours: f32 from the normalized features on.
        q, k = q.float(), k.float()
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.clone()], 1) / TEMPERATURE
        loss = torch.nn.functional.cross_entropy(logits, torch.zeros(BATCH, dtype=torch.long, device=device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        queue[:, at : at + BATCH] = k.T
        at = (at + BATCH) % QUEUE
        losses.append(loss.item())
    return losses


def ours(start, queue, steps, args):
    tensors = {"queue": queue, "queue_ptr": torch.zeros(1, dtype=torch.long)}
    for name, tensor in start.items():
        if not name.endswith("num_batches_tracked"):
            tensors[f"encoder_q.{name}"], tensors[f"encoder_k.{name}"] = tensor.clone(), tensor.clone()
    for i, (im_q, im_k, shuffle) in enumerate(steps):
        tensors |= {f"step{i}.im_q": im_q, f"step{i}.im_k": im_k, f"step{i}.shuffle": shuffle}
        tensors[f"step{i}.lr"] = torch.tensor([LR])
    sets = {
        "run.precision": args.precision, "encoder.arch": "resnet18", "encoder.stem": "imagenet",
        "encoder.width": "1.0", "encoder.head": "mlp", "encoder.bn_groups": 1, "optim.batch_size": BATCH,
        "moco.queue_size": QUEUE, "moco.dim": DIM, "moco.temperature": TEMPERATURE,
        "moco.key_momentum": KEY_MOMENTUM, "moco.symmetric": "false", "moco.shuffle_bn": "true",
        "optim.sgd_momentum": SGD_MOMENTUM, "optim.weight_decay": WEIGHT_DECAY,
    }  # fmt: skip
    # Here and not where temporary files go, which may be small; what a start that was killed left goes first.
    folder = pathlib.Path("runs/gpu-curve-files")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        files = [str(folder / name) for name in ("in.safetensors", "out.safetensors")]
        save_file(tensors, files[0])
        command = [*args.step, "--config", args.config, "--input", files[0], "--output", files[1]]
        command += ["--gradients", "0", "--device", args.device]
        command += [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    # The last lines are what a reader sees first, so what the program said comes after its command.
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nit ended with {done.returncode}:\n{done.stderr}")
    losses = [float(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("step ")]
    if len(losses) != args.steps:
        sys.exit(f"{' '.join(command)}\nerror: it printed {len(losses)} losses of {args.steps} steps")
    return losses


def save_file(tensors, path):
    """As safetensors: the package need not be there."""
    header, offset = {}, 0
    for name, tensor in tensors.items():
        dtype = {torch.float32: "F32", torch.int64: "I64"}[tensor.dtype]
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.contiguous().numpy().tobytes())


def smooth(losses):
    return torch.tensor(losses, dtype=torch.float64).unfold(0, min(WINDOW, len(losses)), 1).mean(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", nargs="+", help="our program `step`, with what starts it")
    parser.add_argument("--config", default="configs/pretrain/default.toml")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--precision", default="bf16", choices=["bf16", "tf32", "f32"])
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = args.precision == "tf32"
    start = {name: tensor.clone() for name, tensor in encoder().state_dict().items()}
    queue = torch.nn.functional.normalize(torch.randn(DIM, QUEUE), dim=0)
    steps = list(views(args.steps))
    of_ours = ours(start, queue, steps, args)
    runs = [pytorch(start, queue, steps, args, NOISE if i > 0 else 0.0) for i in range(RUNS)]
    curves = torch.stack([smooth(run) for run in runs])
    spread = max(
        (curve - torch.cat([curves[:i], curves[i + 1 :]]).mean(0)).abs().mean().item()
        for i, curve in enumerate(curves)
    )
    distance = (smooth(of_ours) - curves.mean(0)).abs().mean().item()
    passed = distance <= ALLOWED * spread
    result = {"distance": distance, "spread": spread, "allowed": ALLOWED * spread, "passed": passed}
    losses = [[round(loss, 5) for loss in run] for run in [of_ours, *runs]]
    print(json.dumps({**result, "precision": args.precision, "ours": losses[0], "pytorch": losses[1:]}))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
