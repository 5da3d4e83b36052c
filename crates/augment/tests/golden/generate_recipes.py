"""Writes recipes.json and recipes.bin beside this script: whole recipes, from JPEG files to views.

Run with the versions of requirements.txt:  python generate_recipes.py
The files lie in recipes.bin; of the views only checksums are kept, and the bytes of one view a recipe.
"""

import io
import json
import pathlib
import random
import zlib

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, RandomResizedCrop, Resize

from generate import blur, crop, gray, pinned_versions, source, step

HERE = pathlib.Path(__file__).parent
BLOB = bytearray()
SIDE = 48
# Odd sizes, portrait and landscape.
SIZES = [(101, 75), (75, 101), (97, 64), (63, 98), (120, 90), (81, 107), (53, 53), (131, 49)]
ENCODINGS = [
    {"subsampling": 2},
    {"subsampling": 1},
    {"subsampling": 0},
    {"subsampling": 2, "progressive": True},
    {"subsampling": 2, "restart_marker_blocks": 2},
]


def keep(data: bytes) -> list[int]:
    BLOB.extend(data)
    return [len(BLOB) - len(data), len(data)]


def picture(rng, width, height):
    """Soft noise with an edge, in color."""
    coarse = rng.normal(128, 60, size=(height // 6 + 2, width // 6 + 2, 3)).clip(0, 255)
    image = Image.fromarray(coarse.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    waves = source("waves", width, height)
    image.paste(waves.crop((0, 0, width // 3, height)), (width // 2, height // 4))
    return image


def encoded(image, index):
    file = io.BytesIO()
    kind = index % 8
    if kind == 5:
        image.convert("L").save(file, "JPEG", quality=88)
    elif kind == 6:
        image.convert("CMYK").save(file, "JPEG", quality=88)
    elif kind == 7:
        image.save(file, "JPEG", quality=75, progressive=True, subsampling=1, optimize=True)
    else:
        image.save(file, "JPEG", quality=88, **ENCODINGS[kind])
    return file.getvalue()


def jitter(rng, hue):
    order = rng.sample(range(4), 4)
    factors = [rng.uniform(0.6, 1.4) for _ in range(3)] + [rng.uniform(-hue, hue)]
    return ["jitter", order, factors]


def drawn_steps(rng, recipe):
    """The steps of a view; probabilities are raised so that most of them occur."""
    has = lambda p: rng.random() < p  # noqa: E731
    blurred = ["blur", rng.uniform(0.1, 2.0)]
    if recipe == "v1":
        steps = [has(0.3) and ["gray"], jitter(rng, 0.4), has(0.5) and ["flip"]]
    elif recipe == "v2":
        steps = [has(0.8) and jitter(rng, 0.1), has(0.3) and ["gray"], has(0.6) and blurred, has(0.5) and ["flip"]]
    elif recipe == "cifar":
        steps = [has(0.5) and ["flip"], has(0.8) and jitter(rng, 0.1), has(0.3) and ["gray"]]
    else:
        steps = [has(0.5) and ["flip"]]
    return [s for s in steps if s]


def applied(image, name, *values):
    if name == "jitter":
        order, factors = values
        for index in order:
            image = step(image, ("brightness", "contrast", "saturation", "hue")[index], factors[index])
        return image
    if name == "gray":
        return gray(image)
    return blur(image, *values) if name == "blur" else step(image, name)


def views(rng, file_index, image):
    for recipe in ("v1", "v2", "v2", "cifar", "linear", "eval"):
        case = {"file": file_index, "recipe": recipe, "size": image.size}
        if recipe == "eval":
            resize = SIDE + rng.randrange(0, 12)
            case["resize"] = resize
            view = CenterCrop(SIDE)(Resize(resize)(image))
            case["steps"] = []
        else:
            scale = (0.08, 1.0) if recipe == "linear" else (0.2, 1.0)
            box = RandomResizedCrop.get_params(image, scale, (3.0 / 4.0, 4.0 / 3.0))
            case["box"] = box
            case["steps"] = drawn_steps(rng, recipe)
            view = crop(image, *box, SIDE)
            for name, *values in case["steps"]:
                view = applied(view, name, *values)
        case["adler32"] = zlib.adler32(view.tobytes())
        if file_index == 0:
            case["view"] = keep(view.tobytes())
        yield case


def main():
    versions = pinned_versions()
    torch.manual_seed(6)
    rng, noise = random.Random(6), np.random.default_rng(6)
    files, cases = [], []
    for index in range(40):
        data = encoded(picture(noise, *SIZES[(index * 3 + index // 8) % len(SIZES)]), index)
        image = Image.open(io.BytesIO(data)).convert("RGB")
        files.append({"file": keep(data), "adler32": zlib.adler32(image.tobytes())})
        cases.extend(views(rng, index, image))
    head = {"generator": "crates/augment/tests/golden/generate_recipes.py", "versions": versions, "side": SIDE}
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    for key, values in (("files", files), ("cases", cases)):
        rows = ",\n".join(f"    {json.dumps(value)}" for value in values)
        lines.append(f"  {json.dumps(key)}: [\n{rows}\n  ]")
    (HERE / "recipes.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    (HERE / "recipes.bin").write_bytes(bytes(BLOB))
    print(len(cases), "cases,", len(BLOB), "bytes")


if __name__ == "__main__":
    main()
