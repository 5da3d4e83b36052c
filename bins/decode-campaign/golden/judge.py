"""What Pillow makes of the files of a pack, as torchvision's loader asks it: one line a file.

A pack is the files one after another, each behind its length (four bytes, little-endian). A line is the first
16 hexadecimal digits of SHA-256 over width and height (four bytes each, little-endian) and the rows of RGB, or
"refused" and the exception.

Run:  python judge.py PACK
"""

import hashlib
import io
import struct
import sys
import warnings

from PIL import Image

# Pillow refuses pictures of more than twice as many pixels; the program refuses those of more than 100,000,000.
Image.MAX_IMAGE_PIXELS = 50_000_000


def outcome(data: bytes) -> str:
    try:
        image = Image.open(io.BytesIO(data)).convert("RGB")
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return "refused " + "".join(c if c.isprintable() else "?" for c in text)[:200]
    head = struct.pack("<II", *image.size)
    return hashlib.sha256(head + image.tobytes()).hexdigest()[:16]


def files(path: str):
    with open(path, "rb") as pack:
        while length := pack.read(4):
            yield pack.read(struct.unpack("<I", length)[0])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for data in files(sys.argv[1]):
        print(outcome(data), flush=False)
