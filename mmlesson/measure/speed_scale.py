"""An index that a cluster builds: `mmlesson bench scale`.

First the build. The same JPEG files are indexed by one process, by a Ray cluster of one worker and of two, and in the
way of clip-retrieval (github.com/rom1504/clip-retrieval), the peer: embeddings to .npy files, then faiss. Each runs in
a process of its own, on one thread and one core; a worker is one, and Ray's own processes run beside it. `overhead` is
Ray's whole time with one worker over the local build's, the start of the worker included. `speedup` compares pictures a
second from the first fragment to the last. The cluster is up before the time starts: people use one that exists.

Then the driver's memory, while 10,000 and then 100,000 small drawings go through a CLIP so light that it takes minutes.
Memory is what belongs to the process alone: pages of a file that is mapped are the system's.

Then millions of vectors, as `bench search` makes them: copies of scenes' embeddings, each moved a little.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from mmlesson import gates, runtime, world
from mmlesson.clip import CLIP, POCKET, load_clip
from mmlesson.measure import stored
from mmlesson.measure.report import Report
from mmlesson.measure.speed_clip import write_photos
from mmlesson.measure.speed_search import scene_features, synthetic_index, text_features
from mmlesson.models import assets
from mmlesson.search import ImageIndex, cluster

SIZES = (1_000_000, 5_000_000, 10_000_000)
PICTURES = (10_000, 100_000)  # between which the driver's memory is to be flat
ROOM = 1.4  # times the bytes of the vectors: so much has to be free on the disk
LIGHT = {  # a CLIP of next to no work: only the driver is looked at
    "model_cfg": {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 32, "patch_size": 32, "width": 32, "layers": 1, "head_width": 32},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}


def report(options) -> Report:
    """`mmlesson bench scale`."""
    runtime.set_threads()
    found = bench_scale()
    return Report("bench scale", "An index built by Ray against one built by a process", found.figures, rows=found.rows)


def stored_figures() -> dict[str, float]:
    """The figures of the stored benchmark. A lesson computes with them. Raises AssetError."""
    return dict(stored.read("bench scale").report.figures)


def stored_rows() -> list[dict[str, float]]:
    """The rows of the stored benchmark, one for each number of vectors. Raises AssetError."""
    return [dict(row) for row in stored.read("bench scale").report.rows]


@dataclass(frozen=True)
class ScaleSpeed:
    """The figures of "bench scale" in bars.py, and one row for each number of vectors."""

    figures: dict[str, float]
    rows: list[dict[str, float]]


def bench_scale(
    files: int = 10_000, pictures: Sequence[int] = PICTURES, sizes: Sequence[int] = SIZES, queries: int = 50
) -> ScaleSpeed:
    """Builds of `files` pictures, the driver's memory with `pictures`, and indexes of every size there is room for."""
    check_peers()
    clip = load_clip(POCKET)
    with tempfile.TemporaryDirectory(prefix="mmlesson-scale-") as name:
        folder = Path(name)
        figures = building(clip, folder, files)
        figures |= driver_memory(folder, pictures)
        base, asked = scene_features(clip, 4000), text_features(clip, queries)
        rows = []
        for n in sizes:
            if free_bytes(folder) > ROOM * n * clip.dim * 4:
                print(f"{n:,} vectors …", file=sys.stderr)
                rows.append(measure_size(n, clip, folder / f"{n}", base, asked))
        figures |= faiss_way(clip, folder, sizes[0], base, asked)
    figures["recall_at_10"] = min(row["recall_at_10"] for row in rows)
    return ScaleSpeed(figures, rows)


def check_peers() -> None:
    """Raises AssetError where Ray or faiss is missing: before the work."""
    try:
        import faiss  # noqa: F401 - only whether it is there
        import ray  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise gates.AssetError(
            f'{error.name} is not installed, which this benchmark needs: `pip install "mmlesson[bench,cluster]"`.'
        ) from None


def free_bytes(folder: Path) -> int:
    import shutil

    return shutil.disk_usage(folder).free


# ---------------------------------------------------------------------------------------------------
# Builds


def building(clip: CLIP, folder: Path, files: int) -> dict[str, float]:
    """The seconds of each way to index the same pictures, and what they are to each other."""
    pictures = folder / "photos"
    several_names(write_photos_of(folder / "originals", min(files, 500)), pictures, files)
    core = sorted(os.sched_getaffinity(0))[:1] if hasattr(os, "sched_getaffinity") else None
    local = child("local", folder, [pictures, folder / "built-local"], core)
    peer = child("files", folder, [pictures, folder / "built-files"], core)
    one = child("ray", folder, [pictures, folder / "built-one", 1], None)
    two = child("ray", folder, [pictures, folder / "built-two", 2], None)
    return {
        "overhead": one["seconds"] / local["seconds"],
        "speedup": two["per_second"] / one["per_second"],
        "vs_peer": peer["seconds"] / one["seconds"],
        "largest_difference": same_index(clip, folder / "built-local", folder / "built-two"),
        "local_images_per_second": files / local["seconds"],
        "peer_images_per_second": files / peer["seconds"],
        "ray_images_per_second": one["per_second"],
        "two_workers_images_per_second": two["per_second"],
        "worker_start_s": one["start_s"],
        "images": files,
    }


def write_photos_of(folder: Path, n: int) -> list[Path]:
    folder.mkdir()
    return write_photos(folder, n)


def several_names(paths: Sequence[Path], folder: Path, n: int) -> None:
    """`n` files in a folder, which are links to these: as much to read and to embed, and less to write."""
    for number in range(n):
        below = folder / f"{number // 1000:04}"
        below.mkdir(parents=True, exist_ok=True)
        path = paths[number % len(paths)]
        os.link(path, below / f"{number:07}{path.suffix}")


def same_index(clip: CLIP, one: Path, other: Path) -> float:
    """The largest difference of a number in two indexes of the same pictures; raises where they have other rows."""
    a, b = ImageIndex.open(one, clip), ImageIndex.open(other, clip)
    columns = ("id", "path", "size", "modified", "sha256", "caption")
    if not a._select(*columns).sort_by("id").equals(b._select(*columns).sort_by("id")):
        raise RuntimeError("the two indexes have different rows")
    return (a._vectors - b._vectors).abs().max().item()


def driver_memory(folder: Path, pictures: Sequence[int]) -> dict[str, float]:
    """GB of the driver at its peak, for each number of pictures, and the growth from the first to the last."""
    drawings = folder / "drawings"
    drawings.mkdir()
    paths = []
    for number, scene in enumerate(world.sample(200, "train", 74)):
        paths.append(drawings / f"{number:03}.png")
        scene.render(32).save(paths[-1])
    model = light_clip(folder / "light")
    found = {}
    for n in pictures:
        several_names(paths, folder / f"drawings-{n}", n)
        done = child("ray", folder, [folder / f"drawings-{n}", folder / f"built-{n}", 2, f"local-dir:{model}"], None)
        found[f"driver_memory_{n}_gb"] = done["memory_gb"]
    first, *_, last = found.values()
    return found | {"driver_memory_growth": last / first}


def light_clip(folder: Path) -> Path:
    """A random CLIP that is quick, as a model folder."""
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(LIGHT))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", require_pretrained=False)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


# ---------------------------------------------------------------------------------------------------
# Processes of their own


def child(way: str, folder: Path, arguments: Sequence, cores: Sequence[int] | None) -> dict[str, float]:
    """What `main` prints in a new process, which may use these cores only."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(assets.PACKAGE.parent), os.environ.get("PYTHONPATH")])),
    }
    code = "import sys; from mmlesson.measure import speed_scale; speed_scale.main(sys.argv[1:])"
    command = [sys.executable, "-c", code, ",".join(map(str, cores or [])), way, *map(str, arguments)]
    print(f"{way} {' '.join(str(each).removeprefix(str(folder)) for each in arguments)} …", file=sys.stderr)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"a build of the benchmark failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: Sequence[str]) -> None:
    """One measurement in this process; prints one line of JSON."""
    cores, way, *rest = arguments
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    runtime.set_threads(1)
    work = {"local": build_local, "ray": build_by_ray, "files": build_files, "ask": ask}[way]
    print(json.dumps(work(*rest)))


def build_local(pictures: str, out: str) -> dict[str, float]:
    clip = load_clip(POCKET)
    start = time.perf_counter()
    ImageIndex.build(pictures, clip, out)
    return {"seconds": time.perf_counter() - start}


def build_by_ray(pictures: str, out: str, workers: str, model: str = POCKET) -> dict[str, float]:
    clip = load_clip(model)
    with cluster.cluster(None, int(workers)), peak() as memory:
        start = time.perf_counter()
        done = []  # (seconds, pictures) at each fragment
        for step in cluster.build_steps(pictures, clip, out, engine=cluster.Engine("ray", workers=int(workers))):
            if step.stage == "embed":
                done.append((time.perf_counter() - start, step.done))
        seconds = time.perf_counter() - start
    (first_s, first), (last_s, last) = done[0], done[-1]
    per_second = (last - first) / (last_s - first_s) if len(done) > 1 else last / last_s
    return {
        "seconds": seconds,
        "per_second": per_second,
        "start_s": first_s - first / per_second,  # before the first picture
        "memory_gb": memory[0],
    }


def build_files(pictures: str, out: str) -> dict[str, float]:
    """The way of clip-retrieval: embeddings and paths to files, a part at a time; then an index of faiss from these."""
    import faiss

    clip = load_clip(POCKET)
    folder = Path(out)
    folder.mkdir()
    faiss.omp_set_num_threads(1)
    start = time.perf_counter()
    paths = sorted(Path(pictures).rglob("*.jpg"))
    for number, first in enumerate(range(0, len(paths), 1024)):
        part = paths[first : first + 1024]
        np.save(folder / f"img_emb_{number}.npy", clip.encode_images(part).numpy())
        (folder / f"metadata_{number}.txt").write_text("\n".join(map(str, part)))
    flat = faiss.IndexFlatIP(clip.dim)
    for number in range(-(-len(paths) // 1024)):
        flat.add(np.load(folder / f"img_emb_{number}.npy"))
    faiss.write_index(flat, str(folder / "image.index"))
    return {"seconds": time.perf_counter() - start}


class peak:
    """A context that watches the memory of this process; a list of the most GB that it held for itself."""

    def __enter__(self) -> list[float]:
        self.found, self.done = [0.0], threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self.found

    def _watch(self) -> None:
        while not self.done.wait(0.05):
            self.found[0] = max(self.found[0], own_memory_gb())

    def __exit__(self, *_) -> None:
        self.done.set()
        self.thread.join()


def own_memory_gb() -> float:
    """GB of memory that this process holds for itself: without mapped files, and without what it shares."""
    if sys.platform == "linux":
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 / 1e9 for line in status if line.startswith("RssAnon:"))
    import psutil

    return psutil.Process().memory_info().rss / 1e9


# ---------------------------------------------------------------------------------------------------
# Millions of vectors


def measure_size(n: int, clip: CLIP, folder: Path, base: torch.Tensor, queries: torch.Tensor) -> dict[str, float]:
    """One row of the table: an index of `n` vectors in `folder`, which is made and removed."""
    import shutil

    index = synthetic_index(n, clip, folder, base)
    start = time.perf_counter()
    index.optimise(approximate=True)
    cells_s = time.perf_counter() - start
    truth = nearest(index._vectors, queries)
    np.save(folder / "queries.npy", queries.numpy())
    found = child("ask", folder, [folder], None)
    disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e9
    del index
    shutil.rmtree(folder)
    return {
        "vectors": n,
        "open_s": found["open_s"],
        "query_ms": found["query_ms"],
        "recall_at_10": recall(truth, found["ids"]),
        "cells_s": cells_s,
        "disk_gb": disk,
        "memory_gb": found["memory_gb"],
        "own_memory_gb": found["own_memory_gb"],
    }


def ask(folder: str) -> dict:
    """Open an index, and ask it approximately: seconds, milliseconds, GB, and what it found."""
    import psutil

    clip = load_clip(POCKET)
    queries = torch.from_numpy(np.load(Path(folder, "queries.npy")))
    before, own = psutil.Process().memory_info().rss, own_memory_gb()
    start = time.perf_counter()
    index = ImageIndex.open(folder, clip)
    open_s = time.perf_counter() - start
    index.search(queries[0], exact=False)
    times, ids = [], []
    for query in queries:
        start = time.perf_counter()
        hits = index.search(query, exact=False)
        times.append(time.perf_counter() - start)
        ids.append([hit.id for hit in hits])
    return {
        "open_s": open_s,
        "query_ms": 1000 * median(times),
        "memory_gb": (psutil.Process().memory_info().rss - before) / 1e9,
        "own_memory_gb": own_memory_gb() - own,
        "ids": ids,
    }


def nearest(vectors: torch.Tensor, queries: torch.Tensor, k: int = 10) -> list[list[int]]:
    """The rows of the k largest cosines for each query, by comparing it with every vector, a part at a time."""
    scores = torch.zeros(len(queries), 0)
    rows = torch.zeros(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(vectors), 200_000):
        part = queries @ vectors[start : start + 200_000].T  # [n_queries, 200_000]
        best = part.topk(min(k, part.shape[1]), dim=1)
        scores, rows = torch.cat([scores, best.values], 1), torch.cat([rows, best.indices + start], 1)
        kept = scores.topk(min(k, scores.shape[1]), dim=1)
        scores, rows = kept.values, rows.gather(1, kept.indices)
    return rows.tolist()


def recall(truth: Sequence[Sequence[int]], found: Sequence[Sequence[int]]) -> float:
    """The share of the true neighbours that were found, mean over the queries."""
    return sum(len(set(a) & set(b)) / len(a) for a, b in zip(truth, found, strict=True)) / len(truth)


def faiss_way(clip: CLIP, folder: Path, n: int, base: torch.Tensor, queries: torch.Tensor) -> dict[str, float]:
    """The peer's search: the same vectors from .npy files in faiss's inverted file, as many cells, as many visited."""
    import faiss

    from mmlesson.measure.speed_search import moved_copies
    from mmlesson.search import PROBES

    place = folder / "npy"
    place.mkdir()
    for number, part in enumerate(moved_copies(base, n)):
        np.save(place / f"img_emb_{number}.npy", part.numpy())
    parts = sorted(place.glob("*.npy"), key=lambda path: int(path.stem.rpartition("_")[2]))
    vectors = np.concatenate([np.load(part) for part in parts])
    faiss.omp_set_num_threads(torch.get_num_threads())
    start = time.perf_counter()
    ivf = faiss.index_factory(clip.dim, f"IVF{round(n**0.5)},Flat", faiss.METRIC_INNER_PRODUCT)
    ivf.train(vectors)
    ivf.add(vectors)
    make_s = time.perf_counter() - start
    ivf.nprobe = PROBES
    faiss.omp_set_num_threads(1)
    times, ids = [], []
    for query in queries[:1].tolist() * 2 + queries.tolist():
        start = time.perf_counter()
        found = ivf.search(np.array([query], np.float32), 10)[1][0].tolist()
        times.append(time.perf_counter() - start)
        ids.append(found)
    truth = nearest(torch.from_numpy(vectors), queries)
    return {
        "peer_query_ms": 1000 * median(times[2:]),
        "peer_recall_at_10": recall(truth, ids[2:]),
        "peer_cells_s": make_s,
    }
