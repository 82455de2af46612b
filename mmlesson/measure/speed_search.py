"""The speed of image search: `mmlesson bench search`.

Exact search is compared with the two libraries that people would use for it: faiss-cpu's IndexFlatIP and
scikit-learn's brute-force neighbours. All search the same vectors, one query at a time, in turns in one process, on
the same number of threads. Ours is `ImageIndex.search`, which returns what a learner gets; theirs return bare numbers.

The vectors are embeddings of scenes, each copy moved a little. Two drawings of one caption have a cosine of 0.947 on
average under the pocket CLIP (`same_content_cosine`), and so have a vector and its copy. Random vectors would be
no fair test: they have no neighbours.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from PIL import Image

from mmlesson import gates, runtime, world
from mmlesson.clip import CLIP, POCKET, load_clip
from mmlesson.measure import stored
from mmlesson.measure.report import Report
from mmlesson.measure.speed_clip import write_photos
from mmlesson.models import assets
from mmlesson.search import ImageIndex, store

NOISE = 0.34  # length of the random vector that is added: 1 / sqrt(1 + 0.34²) = 0.947
SIZES = (1_000, 10_000, 100_000, 1_000_000)


def report(options) -> Report:
    """`mmlesson bench search`."""
    runtime.set_threads()
    found = bench_search()
    return Report("bench search", "Exact search against faiss-cpu and scikit-learn", found.figures, rows=found.rows)


def stored_rows() -> list[dict[str, float]]:
    """The rows of the stored benchmark, as `measure_size` returns them. Raises AssetError.

    A lesson shows them: it has no time for large indexes.
    """
    return [dict(row) for row in stored.read("bench search").report.rows]


@dataclass(frozen=True)
class SearchSpeed:
    """The figures of "bench search" in bars.py, and one row for each size of an index."""

    figures: dict[str, float]
    rows: list[dict[str, float]]


def bench_search(
    sizes: Sequence[int] = SIZES, exact_n: int = 100_000, files: int = 2000, many: int = 10_000, rounds: int = 5
) -> SearchSpeed:
    """Against the peers among `exact_n` vectors, then indexes of every size; `files` and `many`: see `indexing`."""
    clip = load_clip(POCKET)
    base, queries = scene_features(clip, 4000), text_features(clip, 100)
    with tempfile.TemporaryDirectory(prefix="mmlesson-bench-") as name:
        folder = Path(name)
        figures = {"same_content_cosine": same_content_cosine(clip)}
        figures |= against_peers(synthetic_index(exact_n, clip, folder / "exact", base), queries)
        figures["open_s"] = min(_seconds(lambda: ImageIndex.open(folder / "exact", clip)) for _ in range(3))
        figures |= indexing(clip, folder, files, many, rounds)
        rows = []
        for n in runtime.progress(sizes, description="sizes", unit="size"):
            rows.append(measure_size(n, clip, folder / f"{n}", base, queries))
    figures["disk_ratio"] = rows[-1]["disk_gb"] / rows[-1]["matrix_gb"]
    return SearchSpeed(figures, rows)


# ---------------------------------------------------------------------------------------------------
# Vectors


def scene_features(clip: CLIP, n: int, split: str = "train", seed: int = 71) -> torch.Tensor:
    """Embeddings of `n` scenes of a split: float32 `[n, dim]` of unit length."""
    return clip.encode_images([scene.render(clip.image_size) for scene in world.sample(n, split, seed)])


def text_features(clip: CLIP, n: int, seed: int = 72) -> torch.Tensor:
    """Embeddings of the canonical captions of `n` held-out scenes, as queries: float32 `[n, dim]`."""
    return clip.encode_texts([scene.caption for scene in world.sample(n, "heldout", seed)])


def same_content_cosine(clip: CLIP, n: int = 300, seed: int = 73) -> float:
    """The mean cosine of two drawings of one caption (other sizes, places, mirroring): what NOISE imitates."""
    scenes = world.sample(n, "heldout", seed)
    again = [
        world.scene(*scene.concepts, background=scene.background, relation=scene.relation or "left of", seed=seed + i)
        for i, scene in enumerate(scenes)
    ]
    one, other = (clip.encode_images([scene.render(clip.image_size) for scene in each]) for each in (scenes, again))
    return (one * other).sum(dim=1).mean().item()


def moved_copies(base: torch.Tensor, n: int, seed: int = 0, batch: int = 50_000) -> Iterator[torch.Tensor]:
    """`n` vectors in batches, float32 `[≤ batch, dim]` of unit length: rows of `base`, moved by NOISE at random."""
    generator = runtime.generator(seed)
    for start in range(0, n, batch):
        size = min(batch, n - start)
        rows = base[torch.randint(len(base), (size,), generator=generator)]
        moves = F.normalize(torch.randn(size, base.shape[1], generator=generator), dim=1)
        yield F.normalize(rows + NOISE * moves, dim=1)


def synthetic_index(n: int, clip: CLIP, folder: Path, base: torch.Tensor, seed: int = 0) -> ImageIndex:
    """An index of `n` vectors without pictures: `moved_copies` of `base` `[m, dim]`. `folder` must not exist."""
    table = store.create_table(folder, clip, None)
    for vectors in moved_copies(base, n, seed):
        store.add_vectors(folder, table, vectors)
    return ImageIndex.open(folder, clip)


# ---------------------------------------------------------------------------------------------------
# Measurements


def milliseconds(index: ImageIndex, queries: torch.Tensor, **options) -> float:
    """Median milliseconds of `index.search` for one query of `queries` `[n, dim]` at a time, top 10."""
    index.search(queries[0], **options)
    return 1000 * median(_seconds(lambda query=query: index.search(query, **options)) for query in queries)


def recall_at_10(index: ImageIndex, queries: torch.Tensor, **options) -> float:
    """The share of the ten nearest by exact search that an approximate search finds, mean over `queries` `[n, dim]`."""
    shares = []
    for query in queries:
        exact = {hit.id for hit in index.search(query, exact=True)}
        shares.append(len(exact & {hit.id for hit in index.search(query, exact=False, **options)}) / len(exact))
    return sum(shares) / len(shares)


def measure_size(n: int, clip: CLIP, folder: Path, base: torch.Tensor, queries: torch.Tensor) -> dict[str, float]:
    """One row of the table: exact and approximate search of `n` vectors, in `folder`, which is made."""
    import psutil

    before = psutil.Process().memory_info().rss
    index = synthetic_index(n, clip, folder, base)
    exact_ms = milliseconds(index, queries, exact=True)
    memory = (psutil.Process().memory_info().rss - before) / 1e9
    optimise_s = _seconds(lambda: index.optimise(approximate=True))
    return {
        "vectors": n,
        "exact_ms": exact_ms,
        "approximate_ms": milliseconds(index, queries, exact=False),
        "recall_at_10": recall_at_10(index, queries),
        "optimise_s": optimise_s,
        "matrix_gb": n * clip.dim * 4 / 1e9,
        "disk_gb": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e9,
        "memory_gb": max(memory, 0.0),
    }


def against_peers(index: ImageIndex, queries: torch.Tensor, k: int = 10) -> dict[str, float]:
    """Exact search of one query at a time: ours against faiss and scikit-learn, taking turns."""
    try:
        import faiss
    except ImportError:
        raise gates.AssetError(
            "faiss-cpu, the peer of this benchmark, is not installed: `pip install faiss-cpu`."
        ) from None
    from sklearn.neighbors import NearestNeighbors

    vectors = index._vectors.numpy()
    faiss.omp_set_num_threads(torch.get_num_threads())
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    neighbours = {  # on vectors of length 1 both metrics rank as the dot product does
        metric: NearestNeighbors(n_neighbors=k, algorithm="brute", metric=metric).fit(vectors)
        for metric in ("cosine", "euclidean")
    }
    sides: dict[str, Callable] = {
        "ours": lambda query: [hit.id for hit in index.search(query, k=k, exact=True)],
        "faiss": lambda query: flat.search(query[None].numpy(), k)[1][0].tolist(),
        **{
            metric: (lambda query, each=each: each.kneighbors(query[None].numpy(), k)[1][0].tolist())
            for metric, each in neighbours.items()
        },
    }
    times: dict[str, list[float]] = {side: [] for side in sides}
    same = 0
    for number, query in enumerate(queries):
        answers = {}
        for side, ask in sides.items():
            if side in neighbours and number >= 30:
                continue  # slow, and thirty of them tell enough
            start = time.perf_counter()
            answers[side] = ask(query)
            times[side].append(time.perf_counter() - start)
        same += answers["ours"] == answers["faiss"]
    ms = {side: 1000 * median(each[3:]) for side, each in times.items()}  # the first few warm up
    sklearn_ms = min(ms["cosine"], ms["euclidean"])
    return {
        "vs_faiss": ms["faiss"] / ms["ours"],
        "vs_sklearn": sklearn_ms / ms["ours"],
        "exact_ms": ms["ours"],
        "faiss_ms": ms["faiss"],
        "sklearn_ms": sklearn_ms,
        "same_answers_as_faiss": same / len(queries),
    }


def indexing(clip: CLIP, folder: Path, files: int, many: int, rounds: int) -> dict[str, float]:
    """What a folder costs: beyond embedding, again when nothing changed, and in memory."""
    pictures = folder / "photos"
    pictures.mkdir()
    paths = write_photos(pictures, files)
    clip.encode_images(paths[:64])
    shares = []
    for number in range(rounds):
        embedding = _seconds(lambda: clip.encode_images(paths))
        building = _seconds(lambda number=number: ImageIndex.build(pictures, clip, path=folder / f"built-{number}"))
        shares.append(building / embedding - 1)

    tiny = folder / "tiny"
    tiny.mkdir()
    for number in range(many):
        Image.new("RGB", (8, 8), (number % 256, number // 256, 99)).save(tiny / f"{number:05}.png")
    index = ImageIndex.build(tiny, clip, path=folder / "built-tiny")
    update = min(_seconds(index.update) for _ in range(3))

    peaks = {}
    for n, batch in ((files // 4, 64), (files, 64), (files, 512)):
        peaks[n, batch] = _peak_of_build(paths[:n], folder / f"peak-{n}-{batch}", batch)
    return {
        "folder_overhead": median(shares),
        "update_unchanged_s": update,
        "memory_more_files_gb": peaks[files, 64] - peaks[files // 4, 64],
        "memory_larger_batch_gb": peaks[files, 512] - peaks[files, 64],
    }


def _peak_of_build(paths: Sequence[Path], folder: Path, batch: int) -> float:
    """Peak memory in GB of a process of its own that indexes copies (hard links) of these files."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    for path in paths:
        os.link(path, pictures / path.name)
    code = (
        "import sys; from mmlesson import ImageIndex, load_clip, runtime; "
        "ImageIndex.build(sys.argv[1], load_clip('pocket-clip'), path=sys.argv[2], batch_size=int(sys.argv[3])); "
        "print(runtime.peak_memory_gb())"
    )
    here = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(assets.PACKAGE.parent), os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, "-c", code, str(pictures), str(folder / "index"), str(batch)]
    return float(subprocess.run(command, env=here, check=True, capture_output=True, text=True).stdout.split()[-1])


def _seconds(work: Callable) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
