"""The speed of CLIP against a peer, both sides in one process on the same files: `mmlesson bench clip`.

The peer of `CLIP.encode_images` is the loop that open_clip's README suggests: open, preprocess, stack
batches of 32, encode, normalise, with the network and the preprocessing as open_clip loads them.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from mmlesson import runtime, world
from mmlesson.clip import CLIP, POCKET, load_clip
from mmlesson.measure.report import Report
from mmlesson.models import assets

WIDTH, HEIGHT = 640, 480


def report(options) -> Report:
    """`mmlesson bench clip`."""
    figures = bench_clip()
    title = f"CLIP.encode_images against the loop of open_clip's README: {figures['images']} JPEG files"
    return Report("bench clip", title, figures)


def bench_clip(n: int = 1000, rounds: int = 5, seed: int = 0) -> dict[str, float]:
    """The figures of "bench clip" in bars.py, for `n` JPEG files of 640×480 pixels and the pocket model.

    Ours and the peer take turns, `rounds` times; each ratio is of two neighbouring runs, so that a machine which
    slows down slows down both. The files are in the operating system's cache from the start.
    """
    clip = load_clip(POCKET)
    model, preprocess = load_peer(clip.device)
    with tempfile.TemporaryDirectory(prefix="mmlesson-bench-") as folder:
        paths = write_photos(Path(folder), n, seed)
        encode_like_readme(model, preprocess, paths[:64])  # both warm up before the clock runs
        clip.encode_images(paths[:64])
        ours, theirs = [], []
        for _ in runtime.progress(range(rounds), description="rounds"):
            seconds, peer_features = _timed(encode_like_readme, model, preprocess, paths)
            theirs.append(seconds)
            seconds, features = _timed(clip.encode_images, paths)
            ours.append(seconds)
    return {
        "ratio": median(peer / own for peer, own in zip(theirs, ours, strict=True)),
        "min_cosine": (features * peer_features).sum(dim=-1).min().item(),
        "classify_ms": _classify_ms(clip, seed),
        "classify_same_labels_ms": _classify_ms(clip, seed, new_labels=False),
        "import_s": import_seconds(),
        "images_per_second": n / median(ours),
        "peer_images_per_second": n / median(theirs),
        "images": n,
        "rounds": rounds,
    }


def _timed(work: Callable, *arguments, **options):
    """(seconds, what work returns)"""
    start = time.perf_counter()
    result = work(*arguments, **options)
    return time.perf_counter() - start, result


def load_peer(device: torch.device) -> tuple[torch.nn.Module, Callable]:
    """The pocket model and its preprocessing as open_clip itself loads them."""
    import open_clip

    folder = assets.model_dir(POCKET)
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}", device=device)
    return model.eval(), preprocess


def encode_like_readme(
    model: torch.nn.Module, preprocess: Callable, paths: Sequence[Path], batch_size: int = 32
) -> torch.Tensor:
    """The peer: the loop of open_clip's README over batches; float32 `[n, dim]` of unit length."""
    device = next(model.parameters()).device
    features = []
    with torch.no_grad():
        for start in range(0, len(paths), batch_size):
            batch = torch.stack([preprocess(Image.open(path)) for path in paths[start : start + batch_size]])
            image_features = model.encode_image(batch.to(device))
            image_features /= image_features.norm(dim=-1, keepdim=True)
            features.append(image_features.cpu())
    return torch.cat(features)


def write_photos(folder: Path, n: int, seed: int = 0) -> list[Path]:
    """`n` different JPEG files of 640×480 pixels, quality 90, about 100 kB; returns their paths.

    Cuttings of real photographs and of scenes of the pocket world, half and half, some mirrored, all with a
    little noise as of a camera: files that cost a decoder what photos cost it.
    """
    scenes = [scene.render(HEIGHT) for scene in world.sample(20, split="heldout", seed=seed)]
    photos = itertools.cycle(photo.image for photo in world.photos("skimage"))
    bases = [base for scene in scenes for base in (scene, next(photos))]
    noise = np.random.default_rng(seed).normal(0, 4, (2 * HEIGHT, 2 * WIDTH, 1)).round().astype(np.int16)

    def write(i: int) -> Path:
        rng = np.random.default_rng([seed, i])
        base = bases[i % len(bases)]
        width = rng.uniform(0.6, 1) * min(base.width, base.height * WIDTH / HEIGHT)
        height = width * HEIGHT / WIDTH
        left, top = rng.uniform(0, base.width - width), rng.uniform(0, base.height - height)
        picture = base.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, (left, top, left + width, top + height))
        if rng.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        y, x = rng.integers(HEIGHT), rng.integers(WIDTH)
        noisy = np.asarray(picture) + noise[y : y + HEIGHT, x : x + WIDTH]
        path = folder / f"{i:05}.jpg"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        return path

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(runtime.progress(pool.map(write, range(n)), n, "writing JPEG files", "file"))


def _classify_ms(clip: CLIP, seed: int, new_labels: bool = True, repeats: int = 30) -> float:
    """Milliseconds for one picture against three labels: new ones each time, or the same, whose embeddings are kept."""
    times = []
    concepts = world.concepts()
    for i, scene in enumerate(world.sample(repeats + 5, split="heldout", seed=seed, objects=1)):
        picture = scene.render(256)
        first = 3 * i if new_labels else 0
        labels = [f"a picture of {concepts[(first + k) % len(concepts)]}" for k in range(3)]
        times.append(1000 * _timed(clip.classify, picture, labels)[0])
    return median(times[5:])  # the first few warm up


def import_seconds(repeats: int = 7) -> float:
    """Seconds that `import mmlesson` adds to starting Python: medians of fresh processes, taken in turn."""
    times: dict[str, list[float]] = {"pass": [], "import mmlesson": []}
    here = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(assets.PACKAGE.parent), os.environ.get("PYTHONPATH")])),
    }
    for _ in range(repeats):
        for code, seconds in times.items():
            seconds.append(_timed(subprocess.run, [sys.executable, "-c", code], env=here, check=True)[0])
    bare, imported = map(median, times.values())
    return imported - bare
