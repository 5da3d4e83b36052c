"""PyTorch's side of `cargo xtask bench gpu`: the training step of the official MoCo code on one device.

It prints one JSON object, as `bench gpu-step` does, with the same phases. Where it differs from the
official builder.py (line numbers of facebookresearch/moco), it is in PyTorch's favor:

- one process without DistributedDataParallel, which the official code refuses to do without; batch norm
  therefore sees the whole batch, and so it does on the other side (one group);
- the momentum update is one multi-tensor operation instead of a loop over the parameters (55-63), and SGD
  one fused operation;
- the permutations of Shuffling BN are drawn on the device instead of on the host (96-99);
- the views are on the device in channels-last order and in the type that the convolutions take.

Everything up to the cross-entropy is inside autocast, so the logits are bf16 there and the loss f32.
Phases are timed in steps of their own with a wait for the device on each side; there the gradient to the
queries counts as a part of the loss, as in the closed form of the other side.
"""

import argparse
import contextlib
import ctypes
import json
import statistics
import sys
import time

DIM, TEMPERATURE, KEY_MOMENTUM = 128, 0.2, 0.999
LR, SGD_MOMENTUM, WEIGHT_DECAY = 0.03, 0.9, 1e-4
PHASE_WARMUP = 3
UNFIT = 3


def refuse(what):
    print(what, file=sys.stderr)
    sys.exit(UNFIT)


def driver_finds_a_device():
    """Asks the driver itself, so that a machine without one gets this message whatever its Python has."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        n_devices = ctypes.c_int(0)
        return (
            driver.cuInit(0) == 0
            and driver.cuDeviceGetCount(ctypes.byref(n_devices)) == 0
            and n_devices.value > 0
        )
    except (OSError, AttributeError):
        return False


def check(device):
    """Ends with a message where PyTorch cannot compute on the device."""
    if device != "cpu" and not driver_finds_a_device():
        refuse("no GPU: the NVIDIA driver (libcuda.so.1) is missing or knows no device")
    try:
        import torch
        import torchvision
    except ImportError as error:
        refuse(f"{sys.executable}: {error}; give --python an interpreter with PyTorch and torchvision")
    if device != "cpu":
        if not torch.cuda.is_available():
            refuse(
                f"{sys.executable}: PyTorch {torch.__version__} has no CUDA that works here "
                "(torch.cuda.is_available() is false); give --python an interpreter whose PyTorch has"
            )
        index = torch.device(device).index or 0
        if index >= torch.cuda.device_count():
            refuse(f"no GPU {device}: PyTorch sees {torch.cuda.device_count()}")
    print(f"PyTorch {torch.__version__}, torchvision {torchvision.__version__}")


class Step:
    """Both encoders, the queue and the optimizer."""

    def __init__(self, args):
        import torch
        import torchvision

        self.torch, self.args, self.device = torch, args, torch.device(args.device)
        self.encoder_q, self.encoder_k = (self.encoder(torchvision) for _ in range(2))
        self.encoder_k.load_state_dict(self.encoder_q.state_dict())
        self.encoder_k.requires_grad_(False)
        self.parameters_q = list(self.encoder_q.parameters())
        self.parameters_k = list(self.encoder_k.parameters())
        self.optimizer = torch.optim.SGD(
            self.parameters_q, LR, momentum=SGD_MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True
        )
        queue = torch.randn(DIM, args.queue_size, device=self.device)
        self.queue, self.queue_ptr = torch.nn.functional.normalize(queue, dim=0), 0
        self.forward_q, self.forward_k, self.contrast = self.encoder_q, self.encoder_k, self.logits_loss
        if args.compile:
            self.forward_q, self.forward_k, self.contrast = map(
                torch.compile, (self.encoder_q, self.encoder_k, self.logits_loss)
            )
        dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
        shape = (args.batch_size, 3, args.size, args.size)
        self.im_q, self.im_k = (
            torch.randn(shape, device=self.device).to(dtype, memory_format=torch.channels_last)
            for _ in range(2)
        )

    def encoder(self, torchvision):
        """builder.py 31-41: the MLP head of v2 instead of the classifier."""
        nn = self.torch.nn
        encoder = getattr(torchvision.models, self.args.arch)(num_classes=DIM)
        hidden = encoder.fc.weight.shape[1]
        encoder.fc = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), encoder.fc)
        return encoder.to(self.device, memory_format=self.torch.channels_last).train()

    def autocast(self):
        if self.args.precision != "bf16":
            return contextlib.nullcontext()
        return self.torch.autocast(self.device.type, dtype=self.torch.bfloat16)

    def query(self):
        with self.autocast():
            return self.torch.nn.functional.normalize(self.forward_q(self.im_q), dim=1)

    def momentum_update(self):
        with self.torch.no_grad():
            self.torch._foreach_lerp_(self.parameters_k, self.parameters_q, 1 - KEY_MOMENTUM)

    def key(self):
        """builder.py 81-126 on one device: permuted, encoded, put back."""
        torch = self.torch
        with torch.no_grad(), self.autocast():
            shuffle = torch.randperm(len(self.im_k), device=self.device)
            images = self.im_k[shuffle].contiguous(memory_format=torch.channels_last)
            keys = torch.nn.functional.normalize(self.forward_k(images), dim=1)
            return keys[torch.argsort(shuffle)]

    def logits_loss(self, q, k, queue):
        """builder.py 154-168 and main_moco.py 419."""
        torch = self.torch
        l_pos = torch.einsum("nc,nc->n", [q, k]).unsqueeze(-1)
        l_neg = torch.einsum("nc,ck->nk", [q, queue])
        logits = torch.cat([l_pos, l_neg], dim=1) / TEMPERATURE
        labels = torch.zeros(len(q), dtype=torch.long, device=q.device)
        return torch.nn.functional.cross_entropy(logits, labels)

    def loss(self, q, k):
        with self.autocast():
            # A copy, since the enqueueing changes the queue before the backward pass reads it.
            return self.contrast(q, k, self.queue.clone().detach())

    def enqueue(self, k):
        """builder.py 65-79."""
        with self.torch.no_grad():
            n, ptr = len(k), self.queue_ptr
            if self.args.queue_size % n != 0:
                raise SystemExit("the official code needs a queue size that the batch size divides")
            self.queue[:, ptr : ptr + n] = k.T
            self.queue_ptr = (ptr + n) % self.args.queue_size

    def sgd(self):
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def whole(self):
        q = self.query()
        self.momentum_update()
        k = self.key()
        loss = self.loss(q, k)
        self.enqueue(k)
        loss.backward()
        self.sgd()
        return loss.detach()

    def wait(self):
        if self.device.type == "cuda":
            self.torch.cuda.synchronize(self.device)

    def timed(self, work):
        self.wait()
        start = time.perf_counter()
        result = work()
        self.wait()
        return result, 1e3 * (time.perf_counter() - start)

    def phases(self):
        """Milliseconds of each phase of a step."""
        q, query_forward = self.timed(self.query)
        _, momentum_update = self.timed(self.momentum_update)
        k, key_forward = self.timed(self.key)
        leaf = q.detach().requires_grad_()

        def loss_and_its_gradient():
            self.loss(leaf, k).backward()
            self.enqueue(k)

        _, loss = self.timed(loss_and_its_gradient)
        _, backward = self.timed(lambda: q.backward(leaf.grad))
        _, sgd = self.timed(self.sgd)
        return {
            "query_forward": query_forward,
            "key_forward": key_forward,
            "loss": loss,
            "backward": backward,
            "optimizer": momentum_update + sgd,
        }


def measure(args):
    import torch

    torch.manual_seed(0)
    is_cuda = args.device != "cpu"
    if is_cuda:
        torch.cuda.set_device(args.device)
        torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = args.precision == "tf32"
    torch.set_float32_matmul_precision("high" if args.precision == "tf32" else "highest")

    step = Step(args)
    first = last = step.whole()
    for _ in range(args.warmup - 1):
        step.whole()
    blocks_ms = []
    for _ in range(args.blocks):

        def block():
            for _ in range(args.steps):
                loss = step.whole()
            return loss

        last, ms = step.timed(block)
        blocks_ms.append(ms / args.steps)
    # Before the phases take anything more.
    memory = torch.cuda.max_memory_allocated() if is_cuda else None
    reserved = torch.cuda.max_memory_reserved() if is_cuda else None
    for _ in range(PHASE_WARMUP):
        step.phases()
    phases = [step.phases() for _ in range(args.steps)]
    step_ms = statistics.median(blocks_ms)
    print(
        json.dumps(
            {
                "side": "torch.compile" if args.compile else "eager",
                "torch": torch.__version__,
                "device": torch.cuda.get_device_name() if is_cuda else "cpu",
                "precision": args.precision,
                "arch": args.arch,
                "size": args.size,
                "batch_size": args.batch_size,
                "queue_size": args.queue_size,
                "bn_groups": 1,
                "steps": args.steps,
                "warmup": args.warmup,
                "blocks_ms": blocks_ms,
                "step_ms": step_ms,
                "images_per_second": 1e3 * args.batch_size / step_ms,
                "phases_ms": {name: statistics.median(p[name] for p in phases) for name in phases[0]},
                "peak_memory_bytes": memory,
                "reserved_memory_bytes": reserved,
                "first_loss": first.item(),
                "last_loss": last.item(),
            }
        )
    )


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu to try the script out")
    parser.add_argument("--precision", default="bf16", choices=["bf16", "tf32", "f32"])
    parser.add_argument("--arch", default="resnet50", help="a ResNet of torchvision")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--queue-size", type=int, default=65536)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--compile", action="store_true", help="encoders and loss through torch.compile")
    parser.add_argument("--check", action="store_true", help="only whether PyTorch and the device are there")
    return parser.parse_args()


if __name__ == "__main__":
    ARGS = arguments()
    check(ARGS.device) if ARGS.check else measure(ARGS)
