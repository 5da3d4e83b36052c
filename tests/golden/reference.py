"""MoCo's training step on torchvision's ResNets, with G GPUs emulated in one process.

Follows the authors' builder.py (step order, shuffling, queue) and their CIFAR-10 notebook (symmetric loss).
What DistributedDataParallel adds is emulated: batch statistics per contiguous group of the batch, running
statistics of group 0, gradients of the mean loss over the whole batch.
"""
import dataclasses
import math

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from formulas import fill, permutation, unit_columns


@dataclasses.dataclass(frozen=True)
class Case:
    """One golden file's settings, without the floating-point type."""

    name: str
    arch: str
    head: str
    stem: str
    symmetric: bool
    image_size: int
    batch_size: int
    temperature: float
    seed: int
    bn_groups: int = 2
    dim: int = 128
    queue_size: int = 32
    key_momentum: float = 0.99
    sgd_momentum: float = 0.9
    weight_decay: float = 1e-4
    learning_rates: tuple = (0.03, 0.02)

    def n_directions(self):
        return 2 if self.symmetric else 1

    def first_queue_ptr(self):
        """The last slot, so that step 0 makes the pointer wrap to 0."""
        return self.queue_size - self.batch_size * self.n_directions()

    def fill(self, name, shape):
        return fill(f"{self.seed}/{name}", shape)


class GroupedBatchNorm(nn.BatchNorm2d):
    """Normalizes each of `n_groups` contiguous groups alone; group 0 alone moves the running statistics."""

    n_groups = 1

    def forward(self, x):
        groups = x.chunk(self.n_groups)
        out = []
        for rank, group in enumerate(groups):
            mean, var = self.running_mean, self.running_var
            if rank > 0:
                mean, var = mean.clone(), var.clone()
            out.append(F.batch_norm(group, mean, var, self.weight, self.bias, True, self.momentum, self.eps))
        return torch.cat(out)


def build(case):
    """A torchvision ResNet in train mode whose `fc` is the projection head."""
    norm = type("Norm", (GroupedBatchNorm,), {"n_groups": case.bn_groups})
    model = getattr(torchvision.models, case.arch)(num_classes=case.dim, norm_layer=norm)
    if case.stem == "cifar":
        model.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        model.maxpool = nn.Identity()
    if case.head == "mlp":
        width = model.fc.in_features
        model.fc = nn.Sequential(nn.Linear(width, width), nn.ReLU(), model.fc)
    return model.train()


def initial_value(case, prefix, name, shape):
    """f64 start of one entry of a state dict; README.md gives the reasons for the batch-norm values."""
    f = case.fill(f"{prefix}.{name}", shape)
    closes_branch = name.startswith("layer") and (".bn3." if case.arch == "resnet50" else ".bn2.") in name
    gain = 0.5 if closes_branch else 1.0
    if len(shape) == 4:
        return f * math.sqrt(6.0 / (shape[0] * shape[2] * shape[3]))
    if len(shape) == 2:
        return 4.0 * f / math.sqrt(shape[1])
    if name.endswith("running_mean"):
        return 0.1 * f
    if name.endswith("running_var"):
        return 1.0 + 0.5 * f
    if name.startswith("fc."):
        return 0.4 * f
    if name.endswith("weight"):
        return gain * (1.0 + 0.2 * f)
    return gain * (np.where(f < 0.0, -1.5, 1.5) + f)


def initialize(model, case, prefix):
    state = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros_like(tensor)
        else:
            state[name] = torch.from_numpy(initial_value(case, prefix, name, tuple(tensor.shape)))
    model.load_state_dict(state)


class Trainer:
    """Both encoders, the queue and torch's own SGD.

    Everything starts in f64, is rounded to `stored_as`, and is then computed in `dtype`.
    """

    def __init__(self, case, stored_as, dtype):
        torch.set_default_dtype(torch.float64)
        self.case, self.stored_as, self.dtype = case, stored_as, dtype
        self.encoder_q, self.encoder_k = build(case), build(case)
        initialize(self.encoder_q, case, "encoder_q")
        initialize(self.encoder_k, case, "encoder_k")
        for encoder in (self.encoder_q, self.encoder_k):
            encoder.to(stored_as).to(dtype)
        self.encoder_k.requires_grad_(False)
        self.queue = self.input(unit_columns(case.fill("queue", (case.dim, case.queue_size))))
        self.queue_ptr = case.first_queue_ptr()
        self.sgd = torch.optim.SGD(
            self.encoder_q.parameters(),
            lr=case.learning_rates[0],
            momentum=case.sgd_momentum,
            weight_decay=case.weight_decay,
            foreach=False,
        )

    def input(self, array):
        return torch.from_numpy(array).to(self.stored_as).to(self.dtype)

    def views(self, step):
        n, size = self.case.batch_size, self.case.image_size
        return [self.input(2.0 * self.case.fill(f"step{step}.{im}", (n, 3, size, size))) for im in ("im_q", "im_k")]

    @torch.no_grad()
    def move_key_encoder(self):
        m = self.case.key_momentum
        for q, k in zip(self.encoder_q.parameters(), self.encoder_k.parameters()):
            k.copy_(k * m + q * (1.0 - m))

    @torch.no_grad()
    def keys(self, im_k, shuffle):
        """Keys of a shuffled batch, back in the batch's order: [N, C]."""
        k = F.normalize(self.encoder_k(im_k[shuffle]), dim=1)
        return k[torch.argsort(shuffle)]

    @torch.no_grad()
    def enqueue(self, keys):
        self.queue = self.queue.clone()
        self.queue[:, self.queue_ptr : self.queue_ptr + len(keys)] = keys.T
        self.queue_ptr = (self.queue_ptr + len(keys)) % self.case.queue_size

    def step(self, step):
        """One optimizer step; returns small outputs in full and the others as tensors to be fingerprinted."""
        case, full = self.case, {}
        views = self.views(step)
        loss, keys = 0.0, []
        for direction in range(case.n_directions()):
            im_q, im_k = views if direction == 0 else views[::-1]
            name = f"direction{direction}"
            q = F.normalize(self.encoder_q(im_q), dim=1)
            if direction == 0:
                self.move_key_encoder()
            shuffle = torch.from_numpy(permutation(f"{case.seed}/step{step}.{name}.shuffle", case.batch_size))
            k = self.keys(im_k, shuffle)
            l_pos = torch.einsum("nc,nc->n", q, k).unsqueeze(1)
            l_neg = torch.einsum("nc,ck->nk", q, self.queue)
            logits = torch.cat([l_pos, l_neg], dim=1) / case.temperature
            loss = loss + F.cross_entropy(logits, torch.zeros(case.batch_size, dtype=torch.int64))
            keys.append(k)
            full |= {f"{name}.q": q.detach(), f"{name}.k": k, f"{name}.l_pos": l_pos.detach()[:, 0]}
            full |= {f"{name}.l_neg": l_neg.detach(), f"{name}.shuffle": shuffle}
        # The notebook enqueues cat([k1, k2]): the keys of direction 1 come first.
        self.enqueue(torch.cat(keys[::-1]))
        full |= {"loss": loss.detach(), "queue_ptr": torch.tensor(self.queue_ptr)}

        self.sgd.zero_grad()
        loss.backward()
        self.sgd.param_groups[0]["lr"] = case.learning_rates[step]
        large = {f"grad.{n}": p.grad.clone() for n, p in self.encoder_q.named_parameters()}
        self.sgd.step()
        for n, p in self.encoder_q.named_parameters():
            large[f"sgd_momentum.{n}"] = self.sgd.state[p]["momentum_buffer"]
        for prefix, encoder in (("encoder_q", self.encoder_q), ("encoder_k", self.encoder_k)):
            for n, t in encoder.state_dict().items():
                if not n.endswith("num_batches_tracked"):
                    large[f"{prefix}.{n}"] = t
        return full, large | {"queue": self.queue}


class KinkMargin:
    """How far the query encoder stays from the points where a gradient jumps.

    Smallest |input of a ReLU| and smallest gap between the two largest inputs of a max-pool window, as a
    fraction of the input's standard deviation.
    """

    def __init__(self, encoder):
        self.relu, self.pool = math.inf, math.inf
        for module in encoder.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_pre_hook(self.see_relu)
            if isinstance(module, nn.MaxPool2d):
                module.register_forward_pre_hook(self.see_pool)

    def see_relu(self, _, inputs):
        x = inputs[0].detach()
        self.relu = min(self.relu, float(x.abs().min() / x.std()))

    def see_pool(self, _, inputs):
        x = inputs[0].detach()
        windows = F.unfold(F.pad(x, (1, 1, 1, 1), value=-math.inf).flatten(0, 1)[:, None], 3, stride=2)
        top = windows.topk(2, dim=1).values
        # A window of zeros ties exactly; its gradient is cut by the ReLU before it.
        gaps = (top[:, 0] - top[:, 1])[top[:, 0] > 0.0]
        self.pool = min(self.pool, float(gaps.min() / x.std()))

    def smallest(self):
        return min(self.relu, self.pool)
