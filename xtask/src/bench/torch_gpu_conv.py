"""PyTorch's side of `bench gpu-conv`: the same convolutions in the same directions, one JSON object.

Activations and weights are in channels-last order in the type of the convolution, and cuDNN's engine is
searched for (torch.backends.cudnn.benchmark). Each sample is timed between two events on the device's stream.
On the other side a computation also reorders the weight, or its gradient, to and from f32: a few
microseconds, which PyTorch spends outside its convolutions.
"""

import argparse
import json
import statistics
import sys

UNFIT = 3
ALL = ("forward", "dx", "dw")
# Name, channels, size, output channels, kernel, stride, directions: as in bins/bench/src/gpu_conv.rs.
CASES = [
    ("stem 7x7/2 3-64", 3, 224, 64, 7, 2, ("forward", "dw")),
    ("layer1 1x1 64-256", 64, 56, 256, 1, 1, ALL),
    ("layer1 3x3 64-64", 64, 56, 64, 3, 1, ALL),
    ("layer2 3x3 128-128", 128, 28, 128, 3, 1, ALL),
    ("layer3 1x1 1024-256", 1024, 14, 256, 1, 1, ALL),
    ("layer4 3x3 512-512", 512, 7, 512, 3, 1, ALL),
]


def milliseconds(torch, work, args):
    """The median of the samples; the first computations choose an engine."""
    for _ in range(2):
        work()
    samples = []
    for _ in range(args.samples):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(args.repeats):
            work()
        end.record()
        end.synchronize()
        samples.append(start.elapsed_time(end) / args.repeats)
    return statistics.median(samples)


def measure(torch, case, direction, args):
    _, c, size, c_out, k, stride, _ = case
    n, out = args.batch_size, -(-size // stride)
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32

    def tensor(*shape):
        x = torch.rand(shape, device=args.device, dtype=dtype) * 2 - 1
        return x.to(memory_format=torch.channels_last)

    x, weight, dy = tensor(n, c, size, size), tensor(c_out, c, k, k), tensor(n, c_out, out, out)
    how = ([stride] * 2, [k // 2] * 2, [1, 1])

    def forward():
        torch.nn.functional.conv2d(x, weight, None, *how[:2])

    def gradient(mask):
        torch.ops.aten.convolution_backward(dy, x, weight, None, *how, False, [0, 0], 1, mask)

    work = {
        "forward": forward,
        "dx": lambda: gradient([True, False, False]),
        "dw": lambda: gradient([False, True, False]),
    }[direction]
    with torch.no_grad():
        ms = milliseconds(torch, work, args)
    operations = 2 * n * out * out * c_out * c * k * k
    return {"ms": ms, "tflops": operations / (ms * 1e9), "choice": None}


def main(args):
    try:
        import torch
    except ImportError as error:
        print(f"{sys.executable}: {error}", file=sys.stderr)
        sys.exit(UNFIT)
    if not torch.cuda.is_available():
        print(f"no GPU: PyTorch {torch.__version__} finds none", file=sys.stderr)
        sys.exit(UNFIT)
    torch.manual_seed(0)
    torch.cuda.set_device(args.device)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = args.precision == "tf32"
    rows = []
    for case in CASES:
        for direction in case[-1]:
            try:
                result = measure(torch, case, direction, args)
            except RuntimeError as error:
                result = {"error": str(error)}
            rows.append({"name": case[0], "direction": direction, "torch": result})
    print(
        json.dumps(
            {
                "side": "torch",
                "torch": torch.__version__,
                "cudnn": torch.backends.cudnn.version(),
                "device": torch.cuda.get_device_name(),
                "precision": args.precision,
                "batch_size": args.batch_size,
                "samples": args.samples,
                "repeats": args.repeats,
                "convolutions": rows,
            }
        )
    )


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--precision", default="bf16", choices=["bf16", "tf32", "f32"])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--samples", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=10)
    return parser.parse_args()


if __name__ == "__main__":
    main(arguments())
