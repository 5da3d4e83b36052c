"""Writes views.json and views.bin beside this script: what Pillow and torchvision make of known images.

Run with the versions of requirements.txt (a CPU build of torch is enough):  python generate.py
views.json lists the cases; the bytes of inputs that cannot be computed and of all outputs lie in views.bin.
"""

import io
import json
import math
import pathlib
import struct
import sys
import zlib

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageFilter
from torchvision.transforms import functional as F
from torchvision.transforms import CenterCrop, InterpolationMode, RandomResizedCrop, Resize

HERE = pathlib.Path(__file__).parent
BLOB = bytearray()


def keep(data: bytes) -> list[int]:
    """Appends to views.bin; returns [offset, length]."""
    BLOB.extend(data)
    return [len(BLOB) - len(data), len(data)]


def source(kind: str, width: int, height: int) -> Image.Image:
    """The images that the Rust test computes by the same formulas."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    if kind == "noise":
        h = (x * 73856093) ^ (y * 19349663) ^ ((c + 1) * 83492791)
        h = (h ^ (h >> 13)) * 0x5BD1E995 & 0xFFFFFFFF
        values = (h ^ (h >> 15)) & 255
    elif kind == "waves":
        t = (x * (3 + 2 * c) + y * (7 - 2 * c) + 40 * c) % 510
        values = np.minimum(t, 510 - t).clip(0, 255)
    else:
        raise ValueError(kind)
    return Image.fromarray(values.astype(np.uint8), "RGB")


def all_colors() -> Image.Image:
    """4096 x 4096 pixels: each 24-bit color once, red fastest."""
    n = np.arange(1 << 24, dtype=np.uint32)
    rgb = np.stack([n & 255, (n >> 8) & 255, n >> 16], axis=-1).astype(np.uint8)
    return Image.fromarray(rgb.reshape(4096, 4096, 3), "RGB")


def gray(image):
    return F.to_grayscale(image, num_output_channels=3)


def blur(image, sigma):
    return image.filter(ImageFilter.GaussianBlur(radius=sigma))


def step(image, name, *values):
    adjust = {
        "brightness": F.adjust_brightness,
        "contrast": F.adjust_contrast,
        "saturation": F.adjust_saturation,
        "hue": F.adjust_hue,
        "grayscale": gray,
        "blur": blur,
        "flip": F.hflip,
    }
    return adjust[name](image, *values)


def crop(image, top, left, height, width, size):
    return F.resized_crop(image, top, left, height, width, [size, size], InterpolationMode.BILINEAR)


def steps_cases():
    """Single transforms on images of odd sizes, then the compositions of the recipes."""
    singles = [
        *(("brightness", f) for f in (0.0, 0.6, 0.8371, 1.0, 1.2345, 1.4)),
        *(("contrast", f) for f in (0.0, 0.6, 0.9013, 1.1234, 1.4)),
        *(("saturation", f) for f in (0.0, 0.6, 0.7777, 1.0577, 1.4)),
        *(("hue", f) for f in (-0.5, -0.4, -0.1, -0.003, 0.0, 0.0449, 0.1, 0.3217, 0.5)),
        *(("blur", s) for s in (0.1, 0.35, 0.7, 1.0, 1.3, 1.7, 2.0, 4.6, 25.0)),
        ("grayscale",),
        ("flip",),
    ]
    for index, single in enumerate(singles):
        kind = ("noise", "waves")[index % 2]
        yield kind, (37, 23), None, [single]
        yield ("waves", "noise")[index % 2], (16, 29), None, [single]
    v1 = [("grayscale",), ("hue", -0.3871), ("contrast", 1.3713), ("brightness", 0.6421), ("saturation", 1.01)]
    v2 = [("saturation", 1.3313), ("hue", 0.0713), ("brightness", 1.0931), ("contrast", 0.7031)]
    rest = [("grayscale",), ("blur", 1.4427), ("flip",)]
    cifar = [("flip",), ("contrast", 0.8137), ("saturation", 0.6137), ("brightness", 1.3137), ("hue", -0.0931)]
    for kind in ("noise", "waves"):
        yield kind, (48, 48), (3, 5, 31, 40, 32), cifar
        yield kind, (48, 48), (9, 0, 39, 30, 32), v2 + rest[1:]
        yield kind, (75, 50), (1, 2, 44, 59, 32), v2 + rest
        yield kind, (50, 75), (20, 11, 22, 17, 32), [*v1, ("flip",)]


def crop_cases():
    """Shrinking, enlarging, one side each way, portrait and landscape, whole images, single pixels."""
    for kind in ("noise", "waves"):
        for size, box in [
            ((48, 48), (0, 0, 48, 48, 32)),
            ((48, 48), (7, 11, 21, 27, 32)),
            ((48, 48), (8, 8, 32, 32, 32)),
            ((48, 48), (8, 8, 40, 32, 32)),
            ((48, 48), (8, 8, 32, 40, 32)),
            ((125, 94), (13, 40, 71, 83, 56)),
            ((94, 125), (31, 2, 88, 67, 56)),
            ((94, 125), (30, 20, 60, 50, 56)),
            ((61, 67), (60, 5, 1, 1, 9)),
            ((61, 67), (4, 5, 3, 50, 17)),
            ((200, 3), (0, 11, 3, 187, 13)),
            ((250, 188), (3, 4, 183, 240, 24)),
        ]:
            yield kind, size, box, []


def eval_cases():
    for kind in ("noise", "waves"):
        for size, resize, side in [
            ((48, 48), 32, 32),
            ((50, 37), 32, 28),
            ((37, 50), 33, 28),
            ((61, 40), 40, 35),
            ((30, 41), 46, 40),
            ((45, 20), 16, 21),
            ((20, 20), 16, 19),
        ]:
            image = source(kind, *size)
            view = CenterCrop(side)(Resize(resize)(image))
            yield {"source": kind, "size": size, "resize": resize, "side": side, "view": keep(view.tobytes())}


def views():
    for cases in (crop_cases(), steps_cases()):
        for kind, size, box, steps in cases:
            image = source(kind, *size)
            if box:
                image = crop(image, *box)
            for name, *values in steps:
                image = step(image, name, *values)
            yield {"source": kind, "size": size, "crop": box, "steps": steps, "view": keep(image.tobytes())}


def exhaustive():
    """Checksums over all 24-bit colors."""
    image = all_colors()
    yield {"steps": [["grayscale"]], "adler32": zlib.adler32(gray(image).tobytes())}
    for turn in (0.0, 0.1, -0.3):
        yield {"steps": [["hue", turn]], "adler32": zlib.adler32(F.adjust_hue(image, turn).tobytes())}
    for factor in (0.6180, 1.3820):
        data = F.adjust_saturation(image, factor).tobytes()
        yield {"steps": [["saturation", factor]], "adler32": zlib.adler32(data)}


def png(color_type: int, depth: int, size, rows: bytes) -> bytes:
    """A PNG of pixel types that Pillow reads but does not write."""
    width, height = size
    stride = len(rows) // height
    raw = b"".join(b"\0" + rows[y * stride : (y + 1) * stride] for y in range(height))

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_files():
    """Each pixel type of a PNG."""
    noise = source("noise", 19, 11)
    wide = np.asarray(source("noise", 76, 22)).astype(np.uint8).tobytes()
    alpha = noise.convert("RGBA")
    alpha.putalpha(noise.getchannel("G"))
    palette = noise.quantize(16)
    deep = np.array([[0, 1, 200, 255, 256, 300, 4000, 65535]], ">u2").tobytes()
    yield "rgb", encoded(noise, "PNG")
    yield "rgba", encoded(alpha, "PNG")
    yield "gray", encoded(noise.convert("L"), "PNG")
    yield "gray_alpha", encoded(alpha.convert("LA"), "PNG")
    yield "one_bit", encoded(noise.convert("1"), "PNG")
    yield "two_bit_gray", png(0, 2, (8, 3), wide[:6])
    yield "four_bit_gray", png(0, 4, (8, 3), wide[:12])
    yield "palette", encoded(palette, "PNG")
    yield "palette_transparent", encoded(palette, "PNG", transparency=3)
    yield "gray_16", png(0, 16, (8, 1), deep)
    yield "gray_alpha_16", png(4, 16, (4, 3), wide[:48])
    yield "rgb_16", png(2, 16, (7, 3), wide[:126])
    yield "rgba_16", png(6, 16, (5, 3), wide[:120])
    yield "interlaced_orientation", encoded(noise, "PNG", exif=orientation())


def orientation() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def jpeg_files():
    """Chroma subsamplings, progressive, gray, CMYK, an orientation tag; smooth and busy pictures."""
    waves = source("waves", 83, 61)
    noise = source("noise", 83, 61)
    even = source("noise", 84, 62).point(lambda value: 255 * (value > 127))
    yield "waves_420", encoded(waves, "JPEG", quality=90, subsampling=2)
    yield "waves_422", encoded(waves, "JPEG", quality=90, subsampling=1)
    yield "waves_444", encoded(waves, "JPEG", quality=90, subsampling=0)
    yield "waves_progressive", encoded(waves, "JPEG", quality=75, progressive=True)
    yield "waves_orientation", encoded(waves, "JPEG", quality=75, exif=orientation())
    yield "waves_restart", encoded(waves, "JPEG", quality=75, restart_marker_rows=1)
    yield "blurred_noise_420", encoded(blur(noise, 2.0), "JPEG", quality=90, subsampling=2)
    yield "noise_420", encoded(noise, "JPEG", quality=90, subsampling=2)
    yield "two_level_noise_420", encoded(even, "JPEG", quality=90, subsampling=2)
    yield "two_level_noise_422", encoded(even, "JPEG", quality=90, subsampling=1)
    yield "two_level_noise_444", encoded(even, "JPEG", quality=90, subsampling=0)
    yield "gray", encoded(waves.convert("L"), "JPEG", quality=90)
    yield "cmyk", encoded(waves.convert("CMYK"), "JPEG", quality=90)


def files(named):
    for name, data in named:
        image = Image.open(io.BytesIO(data))
        rgb = image.convert("RGB")
        yield {"name": name, "mode": image.mode, "size": rgb.size, "file": keep(data), "rgb": keep(rgb.tobytes())}


def draws():
    """Moments of the box that torchvision draws, and boxes where all ten tries must fail."""
    torch.manual_seed(0)
    for size, scale in [((48, 48), (0.2, 1.0)), ((500, 375), (0.08, 1.0)), ((120, 333), (0.2, 1.0))]:
        image, n = Image.new("RGB", size), 40_000
        ratio = (3.0 / 4.0, 4.0 / 3.0)
        boxes = np.array([RandomResizedCrop.get_params(image, scale, ratio) for _ in range(n)], float)
        moments = {"mean": boxes.mean(0).tolist(), "std": boxes.std(0).tolist()}
        yield {"size": size, "scale": scale, "n": n, **moments}
    for size in [(400, 10), (10, 400), (1, 5), (401, 7)]:
        image = Image.new("RGB", size)
        box = RandomResizedCrop.get_params(image, (0.9, 1.0), (3.0 / 4.0, 4.0 / 3.0))
        yield {"size": size, "scale": (0.9, 1.0), "fallback": box}


def pinned_versions() -> dict[str, str]:
    """What this runs with, which must be what requirements.txt says."""
    versions = {
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "torch": torch.__version__.split("+")[0],
        "torchvision": torchvision.__version__.split("+")[0],
    }
    pinned = dict(line.split("==") for line in (HERE / "requirements.txt").read_text().split())
    assert all(versions[name] == version for name, version in pinned.items()), versions
    return versions


def main():
    versions = pinned_versions()
    assert math.isclose(sum(np.asarray(source("noise", 64, 64)).mean((0, 1))) / 3, 127.5, abs_tol=3)
    golden = {
        "generator": "crates/augment/tests/golden/generate.py",
        "versions": versions,
        "views": list(views()),
        "eval": list(eval_cases()),
        "all_colors": list(exhaustive()),
        "png": list(files(png_files())),
        "jpeg": list(files(jpeg_files())),
        "boxes": list(draws()),
    }
    lines = []
    for key, value in golden.items():
        if isinstance(value, list):
            cases = ",\n".join(f"    {json.dumps(case)}" for case in value)
            lines.append(f'  "{key}": [\n{cases}\n  ]')
        else:
            lines.append(f'  "{key}": {json.dumps(value)}')
    (HERE / "views.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    (HERE / "views.bin").write_bytes(bytes(BLOB))


if __name__ == "__main__":
    main()
