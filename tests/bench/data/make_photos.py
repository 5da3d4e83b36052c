"""Writes photo-like JPEGs: 1/f noise with edges, about 500 x 375 pixels and 95 KB at quality 90.

usage: make_photos.py FOLDER N [SEED]
"""

import pathlib
import sys

import numpy as np
from PIL import Image, ImageDraw

QUALITY = 90
# Brings the files to about 95 KB.
NOISE_EXPONENT = 1.0


def pink(rng, height: int, width: int) -> np.ndarray:
    """Noise whose amplitude falls with frequency as a photograph's does; mean 0, deviation 1."""
    fy = np.fft.fftfreq(height)[:, None]
    fx = np.fft.rfftfreq(width)[None, :]
    frequency = np.maximum(np.hypot(fy, fx), 1.0 / max(height, width))
    spectrum = rng.normal(size=(2, height, frequency.shape[1])) / frequency**NOISE_EXPONENT
    noise = np.fft.irfft2(spectrum[0] + 1j * spectrum[1], s=(height, width))
    return (noise - noise.mean()) / noise.std()


def photo(rng) -> Image.Image:
    long = int(rng.integers(470, 531))
    short = int(long * rng.uniform(0.70, 0.80))
    width, height = (long, short) if rng.random() < 0.75 else (short, long)
    # One luminance and two weaker, smoother differences.
    luma, red, blue = (pink(rng, height, width) for _ in range(3))
    base = rng.uniform(90, 165, size=3)
    channels = np.stack([luma * 36 + red * 9, luma * 35 - red * 4 - blue * 4, luma * 34 + blue * 11], -1) + base
    image = Image.fromarray(channels.clip(0, 255).astype(np.uint8), "RGB")
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(int(rng.integers(3, 9))):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        w, h = rng.uniform(20, 200, size=2)
        color = (*(int(v) for v in rng.integers(0, 256, size=3)), int(rng.integers(60, 160)))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x - w / 2, y - h / 2, x + w / 2, y + h / 2), fill=color)
    return image


def main():
    folder, n = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    rng = np.random.default_rng(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    folder.mkdir(parents=True, exist_ok=True)
    sizes = []
    for index in range(n):
        path = folder / f"{index:05}.jpg"
        photo(rng).save(path, quality=QUALITY)
        sizes.append(path.stat().st_size)
    print(f"{n} files of {np.mean(sizes) / 1000:.1f} KB on average in {folder}")


if __name__ == "__main__":
    main()
