"""What this device reaches at most, as measured: the versions of its software, a large copy, large products."""

import json
import sys

import torch
import torchvision

from tools import libraries

SIZE, COPIED = 8192, 1 << 30
DEVICE = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cuda:0")


def fastest(work, times=6):
    """Milliseconds of the fastest of some, after one that does not count."""
    work()
    marks = []
    for _ in range(times):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        marks.append((begin, end))
    torch.cuda.synchronize()
    return min(begin.elapsed_time(end) for begin, end in marks)


def main():
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__, "cuda": torch.version.cuda}
    if DEVICE.type == "cpu":
        print(json.dumps(versions))
        return
    torch.cuda.set_device(DEVICE)
    torch.set_float32_matmul_precision("highest")
    of = torch.cuda.get_device_properties(DEVICE)
    a = torch.empty(COPIED, dtype=torch.uint8, device=DEVICE).random_()
    b = torch.empty_like(a)
    copied = 2 * COPIED / (fastest(lambda: b.copy_(a)) / 1e3)
    rates = {}
    for name, dtype, size in (("bf16_flops", torch.bfloat16, SIZE), ("f32_flops", torch.float32, SIZE // 2)):
        x, y = (torch.randn(size, size, device=DEVICE).to(dtype) for _ in range(2))
        rates[name] = 2 * size**3 / (fastest(lambda: x @ y) / 1e3)
    print(
        json.dumps(
            {
                **versions, "cudnn": torch.backends.cudnn.version(), "nccl": ".".join(map(str, torch.cuda.nccl.version())),
                "device": of.name, "multiprocessors": of.multi_processor_count, "memory": of.total_memory,
                "bytes_per_second": copied, **rates, "libraries": sorted(libraries()),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
