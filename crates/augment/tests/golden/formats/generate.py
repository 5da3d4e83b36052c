"""WebP, BMP, TIFF and GIF files, and the pixels that Pillow makes of them.

Run in this folder:  python -m venv V && V/bin/pip install -r requirements.txt && V/bin/python generate.py
Writes formats.json (cases with places in the blob, versions) and formats.bin (files and pixels).
"""
import io
import json
import pathlib

import numpy as np
import PIL
from PIL import Image

HERE = pathlib.Path(__file__).parent
WIDTH, HEIGHT = 37, 26


def photo() -> Image.Image:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    waves = [120 + 100 * np.sin(x / 7), 90 + 80 * np.cos(y / 5), 160 + 60 * np.sin((x + y) / 9)]
    noise = np.random.default_rng(7).normal(0, 12, (HEIGHT, WIDTH, 3))
    return Image.fromarray((np.stack(waves, -1) + noise).clip(0, 255).astype(np.uint8))


def saved(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def alpha(image: Image.Image) -> Image.Image:
    ramp = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    image = image.convert("RGB")
    image.putalpha(Image.fromarray(ramp))
    return image


def cases() -> dict[str, bytes]:
    rgb = photo()
    other = rgb.transpose(Image.Transpose.ROTATE_180)
    palette = rgb.quantize(60)
    gray = rgb.convert("L")
    gray16 = Image.fromarray((np.arange(WIDTH * HEIGHT, dtype=np.uint16) * 61 % 700).reshape(HEIGHT, WIDTH))
    files = {
        "webp-lossless": saved(rgb, "WEBP", lossless=True),
        "webp-lossless-alpha": saved(alpha(rgb), "WEBP", lossless=True, exact=True),
        "webp-lossy": saved(rgb, "WEBP", quality=80),
        "webp-lossy-low": saved(rgb, "WEBP", quality=20),
        "webp-lossy-alpha": saved(alpha(rgb), "WEBP", quality=80),
        "webp-animated": saved(rgb, "WEBP", save_all=True, append_images=[other], lossless=True),
        "bmp-rgb": saved(rgb, "BMP"),
        "bmp-alpha": saved(alpha(rgb), "BMP"),
        "bmp-palette": saved(palette, "BMP"),
        "bmp-gray": saved(gray, "BMP"),
        "bmp-bits": saved(rgb.convert("1"), "BMP"),
        "tiff-raw": saved(rgb, "TIFF"),
        "tiff-pages": saved(rgb, "TIFF", save_all=True, append_images=[other]),
        "tiff-alpha": saved(alpha(rgb), "TIFF"),
        "tiff-gray": saved(gray, "TIFF"),
        "tiff-gray-16": saved(gray16, "TIFF"),
        "tiff-bits": saved(rgb.convert("1"), "TIFF"),
        "tiff-palette": saved(palette, "TIFF"),
        "tiff-cmyk": saved(rgb.convert("CMYK"), "TIFF"),
        "gif-palette": saved(palette, "GIF"),
        "gif-gray": saved(gray, "GIF"),
        "gif-interlaced": saved(palette, "GIF", interlace=1),
        "gif-plain-rows": saved(palette, "GIF", interlace=0),
        "gif-transparent": saved(palette, "GIF", transparency=3),
        "gif-animated": saved(palette, "GIF", save_all=True, append_images=[other.quantize(60)]),
    }
    for compression in ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"]:
        files[f"tiff-{compression}"] = saved(rgb, "TIFF", compression=compression)
    files["tiff-group4"] = saved(rgb.convert("1"), "TIFF", compression="group4")
    # The first picture is smaller than the screen, and lies in its middle.
    part = bytearray(saved(palette.crop((0, 0, 20, 10)), "GIF"))
    part[6:10] = WIDTH.to_bytes(2, "little") + HEIGHT.to_bytes(2, "little")
    at = part.index(b"\x2c", 13 + 3 * 2 ** ((part[10] & 7) + 1))
    part[at + 1 : at + 5] = (9).to_bytes(2, "little") + (8).to_bytes(2, "little")
    files["gif-part"] = bytes(part)
    return files


def main() -> None:
    blob, rows = bytearray(), []

    def put(data: bytes) -> list[int]:
        blob.extend(data)
        return [len(blob) - len(data), len(data)]

    for name, data in cases().items():
        image = Image.open(io.BytesIO(data))
        pixels = image.convert("RGB")
        rows.append({"name": name, "mode": image.mode, "size": list(pixels.size), "file": put(data), "pixels": put(pixels.tobytes())})
    golden = {
        "generator": "crates/augment/tests/golden/formats/generate.py",
        "versions": {"pillow": PIL.__version__, "numpy": np.__version__},
        "cases": rows,
    }
    (HERE / "formats.json").write_text(json.dumps(golden, indent=1) + "\n")
    (HERE / "formats.bin").write_bytes(blob)
    print(len(blob), [row["name"] + " " + row["mode"] for row in rows])


main()
