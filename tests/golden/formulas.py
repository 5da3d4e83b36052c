"""The integer formula that fills every input of the golden files, and the fingerprint that sums up an output.

Only numpy is needed. README.md beside this file states both exactly enough to write them again in another
language.
"""
import hashlib
import json
import math
import pathlib

import numpy as np
import safetensors.numpy

GAMMA = np.uint64(0x9E3779B97F4A7C15)
N_PROBES = 4
N_SAMPLES = 8


def fnv1a64(text):
    """64-bit FNV-1a of the UTF-8 bytes."""
    state = 0xCBF29CE484222325
    for byte in text.encode():
        state = ((state ^ byte) * 0x100000001B3) % 2**64
    return state


def fill(name, shape):
    """f64 in [-1, 1): row-major element i is output i + 1 of a SplitMix64 seeded with fnv1a64(name)."""
    n = math.prod(shape)
    z = np.uint64(fnv1a64(name)) + np.arange(1, n + 1, dtype=np.uint64) * GAMMA
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0).reshape(shape)


def unit_columns(matrix):
    """Columns of `matrix` scaled to norm 1; the squares are added from the first row to the last."""
    total = np.zeros(matrix.shape[1])
    for row in matrix:
        total += row * row
    return matrix / np.sqrt(total)


def permutation(name, n):
    """Indices 0..n sorted by fill(name); the stored files hold the result, so a reader need not redo it."""
    return np.argsort(fill(name, (n,)), kind="stable").astype(np.int64)


_probes = {}


def probe(index, n):
    """First n elements of fill(f"probe{index}")."""
    if index not in _probes or _probes[index].size < n:
        _probes[index] = fill(f"probe{index}", (n,))
    return _probes[index][:n]


def sample_indices(n):
    """N_SAMPLES indices spread from the first element to the last; they repeat when n is small."""
    return np.arange(N_SAMPLES) * (n - 1) // (N_SAMPLES - 1)


def fingerprint(tensor):
    """f64 [2 + N_PROBES + N_SAMPLES]: l2 norm, sum, dot products with the probes, sampled elements."""
    flat = np.ascontiguousarray(tensor, dtype=np.float64).reshape(-1)
    head = [math.sqrt(np.sum(flat * flat)), np.sum(flat)]
    head += [np.sum(flat * probe(j, flat.size)) for j in range(N_PROBES)]
    return np.concatenate([head, flat[sample_indices(flat.size)]])


def write(path, tensors, metadata, sources):
    """Write a safetensors file whose bytes depend on nothing but the arguments.

    `sources` are the scripts that made the numbers: their SHA-256 goes into the metadata. The safetensors
    package puts metadata keys in random order, so the header is sorted afterwards.
    """
    metadata = metadata | {f"sha256 {source.name}": sha256(source) for source in sources}
    blob = safetensors.numpy.save(tensors, metadata={k: str(v) for k, v in metadata.items()})
    n_header = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + n_header])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(n_header)
    if len(text) != n_header:
        raise ValueError(f"{path}: sorting the header changed its length from {n_header} to {len(text)}")
    pathlib.Path(path).write_bytes(blob[:8] + text + blob[8 + n_header :])


def sha256(path):
    """SHA-256 of a file's bytes in hexadecimal."""
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
