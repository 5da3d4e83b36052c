"""Measures what other loaders need for two 224-pixel MoCo v2 views of each JPEG of a folder, in memory.

usage: peers.py FOLDER PEER THREADS REPEATS       PEER: pil, v2, dali

Prints one line of JSON: seconds for each repeat over all files, or why the peer cannot run.
"""

import io
import json
import multiprocessing
import pathlib
import random
import sys
import time


def files(folder):
    return [path.read_bytes() for path in sorted(pathlib.Path(folder).glob("*.jpg"))]


class GaussianBlur:
    """The official code's: PIL's blur with a sigma from 0.1 to 2."""

    def __init__(self, low, high):
        self.low, self.high = low, high

    def __call__(self, image):
        from PIL import ImageFilter

        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(self.low, self.high)))


def pil_transform():
    from torchvision import transforms as T

    return T.Compose([
        T.RandomResizedCrop(224, scale=(0.2, 1.0)),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        T.RandomGrayscale(p=0.2),
        T.RandomApply([GaussianBlur(0.1, 2.0)], p=0.5),
        T.RandomHorizontalFlip(),
        T.ToTensor(),
        T.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ])


def pil_worker(data):
    from PIL import Image

    transform = pil_transform()
    for file in data:
        image = Image.open(io.BytesIO(file)).convert("RGB")
        transform(image), transform(image)


def v2_worker(data):
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import v2 as T

    transform = T.Compose([
        T.RandomResizedCrop(224, scale=(0.2, 1.0), antialias=True),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        T.RandomGrayscale(p=0.2),
        T.RandomApply([T.GaussianBlur(23, sigma=(0.1, 2.0))], p=0.5),
        T.RandomHorizontalFlip(),
        T.ToDtype(torch.float32, scale=True),
        T.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ])
    for file in data:
        image = decode_jpeg(torch.frombuffer(bytearray(file), dtype=torch.uint8), ImageReadMode.RGB)
        transform(image), transform(image)


def one_thread():
    import torch

    torch.set_num_threads(1)


def timed(worker, data, n_processes, repeats):
    """Seconds of each repeat; each process has its own copy of the transform and its share of the files."""
    one_thread()
    worker(data[:8])
    seconds = []
    if n_processes == 1:
        for _ in range(repeats):
            start = time.perf_counter()
            worker(data)
            seconds.append(time.perf_counter() - start)
        return seconds
    with multiprocessing.get_context("fork").Pool(n_processes, initializer=one_thread) as pool:
        shares = [data[i::n_processes] for i in range(n_processes)]
        pool.map(worker, [share[:4] for share in shares])
        for _ in range(repeats):
            start = time.perf_counter()
            pool.map(worker, shares, chunksize=1)
            seconds.append(time.perf_counter() - start)
    return seconds


def dali(folder, n_threads, repeats):
    from nvidia.dali import fn, pipeline_def, types

    data = files(folder)
    batch_size = 20

    @pipeline_def(batch_size=batch_size, num_threads=n_threads, device_id=None, seed=1)
    def pipeline():
        encoded = fn.external_source(source=batches(), dtype=types.UINT8, ndim=1)
        decoded = fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
        return view(decoded), view(decoded)

    def batches():
        import numpy as np

        arrays = [np.frombuffer(file, np.uint8) for file in data]
        while True:
            for start in range(0, len(arrays) - batch_size + 1, batch_size):
                yield arrays[start : start + batch_size]

    def coin(p):
        return fn.random.coin_flip(probability=p, dtype=types.BOOL)

    def view(image):
        view = fn.random_resized_crop(image, size=224, random_area=(0.2, 1.0), antialias=True)
        jitter = fn.cast(coin(0.8), dtype=types.FLOAT)

        def factor(low, high):
            return 1.0 + jitter * (fn.random.uniform(range=(low, high)) - 1.0)

        hue = jitter * fn.random.uniform(range=(-36.0, 36.0))
        gray = fn.cast(coin(0.2), dtype=types.FLOAT)
        saturation = factor(0.6, 1.4) * (1.0 - gray)
        view = fn.color_twist(
            view, brightness=factor(0.6, 1.4), contrast=factor(0.6, 1.4), saturation=saturation, hue=hue
        )
        sigma = fn.random.uniform(range=(0.1, 2.0)) * fn.cast(coin(0.5), dtype=types.FLOAT) + 0.05
        view = fn.gaussian_blur(view, sigma=sigma)
        return fn.crop_mirror_normalize(
            view,
            mirror=fn.random.coin_flip(),
            mean=[0.485 * 255, 0.456 * 255, 0.406 * 255],
            std=[0.229 * 255, 0.224 * 255, 0.225 * 255],
            dtype=types.FLOAT,
            output_layout="CHW",
        )

    pipe = pipeline()
    pipe.build()
    pipe.run()
    n_batches = len(data) // batch_size
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(n_batches):
            pipe.run()
        seconds.append((time.perf_counter() - start) * len(data) / (n_batches * batch_size))
    return seconds


def main():
    folder, peer, n_threads, repeats = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    result = {"peer": peer, "threads": n_threads, "n_files": len(files(folder))}
    try:
        if peer == "dali":
            result["seconds"] = dali(folder, n_threads, repeats)
        else:
            worker = {"pil": pil_worker, "v2": v2_worker}[peer]
            result["seconds"] = timed(worker, files(folder), n_threads, repeats)
    except Exception as error:
        result["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
