"""Makes each view of a dump again with Pillow and torchvision and compares the bytes.

usage: repeat_views.py DUMP.safetensors          the JSON file is written beside it

Runs with the versions of crates/augment/tests/golden/requirements.txt. Prints a line a view that differs
and a sum at the end; exits with 1 if any view differs, which is expected of `"fidelity": "fast"`.
"""

import json
import pathlib
import struct
import sys

import numpy as np
from PIL import Image, ImageFilter
from torchvision.transforms import InterpolationMode, functional as F


def tensors(path):
    """The arrays of a safetensors file: 8 bytes of length, a JSON header, the data."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            assert entry["dtype"] == "U8", entry
            start, end = entry["data_offsets"]
            part = data[8 + length + start : 8 + length + end]
            arrays[name] = np.frombuffer(part, np.uint8).reshape(entry["shape"])
    return arrays


def framed(image, frame, size):
    if frame["kind"] == "center_crop":
        return F.center_crop(F.resize(image, frame["resize"]), size)
    box = [frame[key] for key in ("top", "left", "height", "width")]
    return F.resized_crop(image, *box, [size, size], InterpolationMode.BILINEAR)


def stepped(view, step):
    kind = step["kind"]
    if kind == "jitter":
        for name in step["order"]:
            view = getattr(F, f"adjust_{name}")(view, step[name])
        return view
    if kind == "grayscale":
        return F.to_grayscale(view, num_output_channels=3)
    if kind == "blur":
        return view.filter(ImageFilter.GaussianBlur(radius=step["sigma"]))
    assert kind == "flip", kind
    return F.hflip(view)


def main():
    path = pathlib.Path(sys.argv[1])
    arrays = tensors(path)
    numbers = json.loads(path.with_suffix(".json").read_text())
    n_off = 0
    for entry in numbers["views"]:
        view = framed(Image.fromarray(arrays[entry["image"]]), entry["frame"], entry["image_size"])
        for step in entry["steps"]:
            view = stepped(view, step)
        off = np.asarray(view) != arrays[entry["tensor"]]
        if off.any():
            n_off += 1
            print(f"{entry['tensor']}: {off.mean():.1%} of the samples differ")
    print(f"{len(numbers['views']) - n_off} of {len(numbers['views'])} views are equal bit for bit")
    sys.exit(1 if n_off else 0)


if __name__ == "__main__":
    main()
