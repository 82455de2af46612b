"""The speed of image search: `mmlesson bench search --json`.

Exact search stands against the two libraries that people would take for it, faiss-cpu's IndexFlatIP and
scikit-learn's brute-force neighbours: the same vectors, one query at a time, taking turns in one process, on the
same number of threads. Ours is `ImageIndex.search`, with all that a learner gets from it; theirs the bare numbers.

The vectors are embeddings of scenes, each copy moved a little: two drawings of one caption have a cosine of 0.947 on
average under the pocket CLIP (`same_content_cosine`), and so have a vector and its copy. Random vectors would be
too easy or too hard: they have no neighbours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from PIL import Image

from mmlesson import gates, runtime, world
from mmlesson.clip import CLIP, POCKET, load_clip
from mmlesson.measure.speed_clip import write_photos
from mmlesson.models import assets
from mmlesson.search import ImageIndex, store

STORED = "benchmarks/search.json"  # in data/: what the lesson shows of sizes that it has no time for
NOISE = 0.34  # length of the random vector that is added: 1 / sqrt(1 + 0.34²) = 0.947
SIZES = (1_000, 10_000, 100_000, 1_000_000)
BARS = {  # figure -> (its bar, which way, what it is)
    "vs_faiss": (1.0, "at least", "time of faiss-cpu IndexFlatIP over ours, exact top-10 of 100,000"),
    "vs_sklearn": (
        1.0,
        "at least",
        "time of scikit-learn's brute-force neighbours over ours, the faster of two metrics",
    ),
    "folder_overhead": (
        0.10,
        "at most",
        "indexing 2,000 JPEG files: seconds beyond embedding them, as a share of these",
    ),
    "update_unchanged_s": (1.0, "at most", "s for update() of 10,000 files of which none has changed"),
    "open_s": (1.0, "at most", "s to open an index of 100,000"),
    "memory_more_files_gb": (None, "", "GB that four times as many files (2,000 for 500) add to the peak"),
    "memory_larger_batch_gb": (None, "", "GB that batches of 512 in place of 64 add to the peak"),
}


def main(options) -> int:
    """`mmlesson bench search [--json] [--write FILE]`: the tables, and with `options.json` a flat JSON object as the last line."""
    runtime.set_threads()
    figures, rows = bench_search()
    for key, value in figures.items():
        bar, way, what = BARS.get(key, (None, "", ""))
        verdict = "" if bar is None else "met" if (value >= bar if way == "at least" else value <= bar) else "NOT MET"
        print(f"{key:24} {value:10.5g}  {f'{way} {bar:g}: {verdict}' if bar else '':24} {what}".rstrip())
    print("\n" + table(rows))
    if options.write:
        stored = {
            "date": date.today().isoformat(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "rows": rows,
        }
        gates.write_atomically(options.write, (json.dumps(stored, indent=1) + "\n").encode())
        written = Path(options.write).resolve()
        if assets.data_dir().resolve() in written.parents:
            assets.update_manifest([written], licence="MIT")
    if options.json:
        print(json.dumps(figures))
    return 0


def stored_rows() -> list[dict[str, float]]:
    """The rows of the last benchmark that was kept with the course, as `measure_size` gives them. Raises AssetError."""
    return json.loads(assets.check_file(STORED).read_text())["rows"]


def table(rows: Sequence[dict[str, float]]) -> str:
    """Markdown: a line for each size."""
    lines = [
        "| vectors | exact, ms | approximate, ms | recall@10 | made in, s | matrix, GB | on disk, GB | added to memory, GB |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        near = f"{row['approximate_ms']:.1f} | {row['recall_at_10']:.3f} | {row['optimise_s']:.0f}"
        sizes = f"{row['matrix_gb']:.3f} | {row['disk_gb']:.3f} | {row['memory_gb']:.2f}"
        lines.append(f"| {row['vectors']:,} | {row['exact_ms']:.2f} | {near} | {sizes} |")
    return "\n".join(lines)


def bench_search(
    sizes: Sequence[int] = SIZES, exact_n: int = 100_000, files: int = 2000, many: int = 10_000, rounds: int = 5
):
    """(the figures of BARS and a few more, the rows of the table: one dict for each of `sizes`)."""
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
    return figures, rows


# ---------------------------------------------------------------------------------------------------
# Vectors


def scene_features(clip: CLIP, n: int, split: str = "train", seed: int = 71) -> torch.Tensor:
    """Embeddings of `n` scenes of a split: float32 `[n, dim]` of unit length."""
    return clip.encode_images([scene.render(clip.image_size) for scene in world.sample(n, split, seed)])


def text_features(clip: CLIP, n: int, seed: int = 72) -> torch.Tensor:
    """Embeddings of the canonical captions of `n` held-out scenes: float32 `[n, dim]`. Queries are words, as people ask."""
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
    """`n` vectors in batches, float32 `[≤ batch, dim]` of unit length: rows of `base`, each moved by NOISE in a random direction."""
    generator = runtime.generator(seed)
    for start in range(0, n, batch):
        size = min(batch, n - start)
        rows = base[torch.randint(len(base), (size,), generator=generator)]
        moves = F.normalize(torch.randn(size, base.shape[1], generator=generator), dim=1)
        yield F.normalize(rows + NOISE * moves, dim=1)


def synthetic_index(n: int, clip: CLIP, folder: Path, base: torch.Tensor, seed: int = 0) -> ImageIndex:
    """An index of `n` vectors without pictures, for timing: `moved_copies` of `base` `[m, dim]`. `folder` must not exist."""
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
