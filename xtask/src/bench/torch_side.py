"""PyTorch's side of `cargo xtask bench step`: the same cases, line by line, as `bench --help` describes.

usage: torch_side.py THREADS LAYOUT      LAYOUT: nchw or channels_last
"""

import resource
import sys
import time

import torch
import torch.nn.functional as F
import torchvision

MOMENTUM, WEIGHT_DECAY, LR = 0.9, 1e-4, 1e-3
C_KEYS = 128


def layout(x):
    return x.contiguous(memory_format=torch.channels_last) if sys.argv[2] == "channels_last" else x


def step(arch, stem, size, batch):
    model = getattr(torchvision.models, arch)()
    model.fc = torch.nn.Identity()
    if stem == "cifar":
        model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        model.maxpool = torch.nn.Identity()
    if sys.argv[2] == "channels_last":
        model = model.to(memory_format=torch.channels_last)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), LR, MOMENTUM, weight_decay=WEIGHT_DECAY)
    images = layout(torch.randn(int(batch), 3, int(size), int(size)))
    slope = torch.randn_like(model(images))

    def run():
        # Our gradients are new tensors each step too.
        optimizer.zero_grad(set_to_none=True)
        model(images).backward(slope)
        optimizer.step()

    return run


def conv(n, c, size, c_out, k, stride, which):
    n, c, size, c_out, k, stride = map(int, (n, c, size, c_out, k, stride))
    x = layout(torch.randn(n, c, size, size))
    weight = layout(torch.randn(c_out, c, k, k))
    dy = torch.randn_like(F.conv2d(x, weight, None, stride, k // 2))
    if which == "forward":
        return lambda: F.conv2d(x, weight, None, stride, k // 2)
    mask = [which == "dx", which == "dw", False]
    two = lambda value: [value, value]
    return lambda: torch.ops.aten.convolution_backward(
        dy, x, weight, None, two(stride), two(k // 2), [1, 1], False, [0, 0], 1, mask
    )


def forward_or_backward(function, inputs, which):
    """Only PyTorch's backward pass: the graph is kept and traversed again."""
    if which == "forward":
        def run():
            with torch.no_grad():
                function(*inputs)
        return run
    for x in inputs:
        x.requires_grad_()
    y = function(*inputs)
    dy = torch.randn_like(y)
    return lambda: torch.autograd.grad(y, inputs, dy, retain_graph=True)


def batch_norm(n, c, size, which, added):
    n, c, size = int(n), int(c), int(size)
    inputs = [layout(torch.randn(n, c, size, size)), torch.randn(c), torch.randn(c)]
    if added:
        inputs.append(layout(torch.randn(n, c, size, size)))

    def function(x, gamma, beta, *shortcut):
        y = F.batch_norm(x, None, None, gamma, beta, training=True)
        for other in shortcut:
            y = y + other
        return F.relu(y, inplace=True)

    return forward_or_backward(function, inputs, which)


def max_pool(n, c, size, which):
    x = layout(torch.randn(int(n), int(c), int(size), int(size)))
    return forward_or_backward(lambda x: F.max_pool2d(x, 3, 2, 1), [x], which)


def info_nce(n, k):
    queries = F.normalize(torch.randn(int(n), C_KEYS)).requires_grad_()
    keys = F.normalize(torch.randn(int(n), C_KEYS))
    queue = F.normalize(torch.randn(int(k), C_KEYS)).t().contiguous()
    labels = torch.zeros(int(n), dtype=torch.long)

    def run():
        positive = (queries * keys).sum(1, keepdim=True)
        logits = torch.cat([positive, queries @ queue], dim=1) / 0.2
        torch.autograd.grad(F.cross_entropy(logits, labels), queries)

    return run


def sgd(n):
    parameter = torch.nn.Parameter(torch.randn(int(n)))
    parameter.grad = torch.randn(int(n))
    optimizer = torch.optim.SGD([parameter], LR, MOMENTUM, weight_decay=WEIGHT_DECAY)
    return optimizer.step


def ema(n):
    key, query = torch.randn(int(n)), torch.randn(int(n))
    # In place, which is faster than the official builder.py's line 63.
    return lambda: key.mul_(0.999).add_(query, alpha=0.001)


CASES = {
    "step": step,
    "conv": conv,
    "bn": lambda *words: batch_norm(*words, added=False),
    "bn_add": lambda *words: batch_norm(*words, added=True),
    "max_pool": max_pool,
    "info_nce": info_nce,
    "sgd": sgd,
    "ema": ema,
}


def main():
    torch.manual_seed(0)
    torch.set_num_threads(int(sys.argv[1]))
    current, run = None, None
    for line in sys.stdin:
        line = line.strip()
        if line == "memory":
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)
            continue
        if line != current:
            run = None
            case, *words = line.split()
            current, run = line, CASES[case](*words)
            for _ in range(2):
                run()
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
