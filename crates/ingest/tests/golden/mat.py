"""Writes `plain.mat` and `packed.mat`: a struct array like `synsets` in the devkit of ImageNet, by scipy.

Run: python3 mat.py, with the packages of requirements.txt.
"""

import os

import numpy as np
from scipy.io import savemat

HERE = os.path.dirname(os.path.abspath(__file__))
FIELDS = ["ILSVRC2012_ID", "WNID", "words", "num_children", "children", "wordnet_height"]
ROWS = [
    (1, "n02119789", "kit fox, Vulpes macrotis", 0, [], 0.5),
    (2, "n02100735", "Köter", 0, [], 0.5),
    (1001, "n00001740", "entity", 2, [1, 70000], 0.5),
]

synsets = np.zeros((len(ROWS), 1), dtype=[(field, object) for field in FIELDS])
for i, (number, wnid, words, n_children, children, height) in enumerate(ROWS):
    # MATLAB keeps numbers as doubles and packs them into small integers; scipy packs nothing, so the
    # types here differ on purpose.
    synsets[i, 0] = (
        np.float64(number) if i % 2 == 0 else np.uint16(number),
        wnid,
        words,
        np.uint8(n_children),
        np.array([children], dtype=np.int32),
        np.float64(height),
    )
for name, packed in (("plain", False), ("packed", True)):
    path = os.path.join(HERE, f"{name}.mat")
    savemat(path, {"other": np.arange(3.0), "synsets": synsets}, do_compression=packed)
    # scipy writes the date of the run into the description; a fixed text keeps the bytes the same.
    with open(path, "r+b") as file:
        file.write(b"MATLAB 5.0 MAT-file, a struct array like that of ImageNet".ljust(116))
