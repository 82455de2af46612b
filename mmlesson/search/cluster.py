"""An index of more pictures than one machine can embed, built by Ray (docs.ray.io): the same CLIP, the same index.

    ImageIndex.build("s3://bucket/pictures", clip, "s3://bucket/index", engine="ray", address="auto")

1. The driver lists the pictures, leaves out what the index or a fragment holds already, and writes the rest as a plan.
2. Ray Data deals the parts of the plan out to actors on all machines. Each loads the CLIP once. It reads and decodes a
   batch of pictures through the house's gates, embeds them, and writes one fragment (see `fragments`).
3. The driver streams the fragments into the table and the file of embeddings: one commit. It makes the cells where the
   collection is large, and removes the fragments.

Whoever is killed, nothing is lost: Ray gives the work of a dead worker to another one, and a driver that is started
again finds the fragments. Nothing is there twice: a fragment is named after its pictures.

Why not lance-ray, which also writes from Ray? It writes rows with their vectors into a Lance table, and commits when
all workers are through: until then a killed driver loses everything. Our embeddings are in files that are mapped into
memory, and the table has no vectors. So the workers write fragments, which outlive the driver, and LanceDB's own writer
commits the rows once. One dependency less, and the index is the one that a build without a cluster makes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmlesson import gates, runtime
from mmlesson.clip import CLIP, load_clip
from mmlesson.gates import AssetError
from mmlesson.models import reading
from mmlesson.search import cells, fragments, remote, store
from mmlesson.search.collection import Row, is_address, is_collection
from mmlesson.search.commit import Known, Listed, commit
from mmlesson.search.fragments import Done, Place, Work
from mmlesson.search.source import absolute
from mmlesson.words import shown

if TYPE_CHECKING:
    from mmlesson.search.index import ImageIndex

ENGINES = ("local", "ray")
FRAGMENT = 256  # pictures: what a worker that is killed loses
WORKER_CPU = 0.5  # of a core, as Ray books it; a worker uses a whole one, but Ray's own tasks need room beside
STORE = 200_000_000  # bytes of Ray's own memory on this machine; the plan streams through it, and no picture does
BLOCK = 8 * 2**20  # bytes: of what Ray keeps of the plan between two steps
NO_RAY = 'Ray is not installed, which builds an index on a cluster: `pip install "mmlesson[cluster]"`.'


@dataclass(frozen=True)
class Step:
    """How far a build is: what `build_steps` yields."""

    stage: str  # "list", "embed", "commit", "cells"
    done: int  # pictures: those of an earlier run count
    total: int
    embedded: int  # in this run
    failed: int  # those of an earlier run count
    tried: int  # in this run: embedded, or failed
    seconds: float  # since the first picture of this run was given to a worker

    @property
    def per_second(self) -> float:
        """Pictures a second in this run; 0 before the first."""
        return self.tried / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At this speed; None before it is known."""
        return (self.total - self.done) / self.per_second if self.per_second else None

    def __str__(self) -> str:
        if self.stage != "embed":
            what = {"list": "listing the pictures", "commit": "writing the index", "cells": "making the cells"}
            return f"{what[self.stage]}: {self.total:,} pictures, {self.failed:,} left out"
        left = "" if self.seconds_left is None else f", {_duration(self.seconds_left)} left"
        return (
            f"{self.done:,} of {self.total:,} pictures, {self.per_second:,.1f} a second{left}, {self.failed:,} left out"
        )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@dataclass(frozen=True)
class Engine:
    """Who embeds: this process ("local") or a cluster ("ray")."""

    name: str = "local"
    address: str | None = None  # of a cluster that runs; None starts a small one on this machine
    workers: int | None = None  # None: one for each core of the cluster
    fragment: int = FRAGMENT

    def __post_init__(self):
        if self.name not in ENGINES:
            raise ValueError(f'engine is "local" or "ray", not {self.name!r:.60}.')
        if self.name == "local" and (self.address is not None or self.workers is not None):
            raise ValueError('an address and a number of workers are for engine="ray".')
        if self.workers is not None:
            gates.whole_number("workers", self.workers, 1, 100_000)
        gates.whole_number("fragment", self.fragment, 1, 1_000_000)


def is_needed(source, path, engine: Engine) -> bool:
    """Whether a build goes this way; an index of a folder in a folder, by one process, has a shorter one."""
    return engine.name != "local" or is_collection(source) or is_address(path)


def build(source, clip: CLIP, path, captions, batch_size: int, engine: Engine) -> ImageIndex:
    """`ImageIndex.build` by fragments; shows how far it is on stderr, as text in a notebook too."""
    steps = build_steps(source, clip, path, captions, batch_size, engine)
    with contextlib.closing(steps), _bar() as show:  # closing: what a stop leaves ends now, and not some time later
        while True:
            try:
                show(next(steps))
            except StopIteration as end:
                return end.value


@contextlib.contextmanager
def _bar() -> Iterator:
    """A function that shows a step, in a bar that goes away at the end."""
    from tqdm import tqdm

    form = "{desc} {percentage:3.0f}%|{bar}| {postfix}"
    with tqdm(desc="indexing", leave=False, delay=1.0, mininterval=0.5, file=sys.stderr, bar_format=form) as bar:

        def show(step: Step) -> None:
            bar.total = step.total
            bar.set_postfix_str(str(step), refresh=False)
            bar.update(step.done - bar.n)

        yield show


def build_steps(
    source, clip: CLIP, path=None, captions=None, batch_size: int = 64, engine: Engine | None = None, worker=None
) -> Iterator[Step]:
    """Build or go on with an index; yields a `Step` for each fragment, and returns the ImageIndex.

    source, clip, path, captions: as in `ImageIndex.build`; path may be an address, and then has to be given.
    worker: the class of the actors, for tests.
    Raises AssetError where another process writes this index, the disk is full, or no cluster can be reached.
    """
    engine = engine or Engine("ray")
    gates.whole_number("batch_size", batch_size, 1)
    root = _root_of(source)
    if path is None:
        if root is None:
            raise ValueError("say where the index goes: path= (or --out) is a folder, or an address such as s3://….")
        path = store.place(root, [], clip)
    address = path if is_address(path) else None
    folder = remote.copy_of(address, clip) if address else absolute(path)
    if folder == root:
        raise AssetError(f"{shown(folder)} holds the pictures: give the index a folder of its own.")
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise AssetError(f"{shown(folder)} is a file or a broken link: give the index a folder of its own.")
    place = Place(address or folder)
    work = Work(place.out, clip.name, clip.fingerprint(), batch_size, engine.fragment, keep=root is None)
    with contextlib.ExitStack() as stack:
        lost = stack.enter_context(fragments.alone(place)) if address else None
        stack.enter_context(store.writing(folder, timeout=0))
        if address:
            remote.fetch(address, folder)
        table = store.table_to_write(folder, clip, root)
        index = yield from _steps(source, clip, captions, engine, worker or Worker, place, work, folder, table, lost)
        if address:
            if lost.is_set():
                raise AssetError(f"Another process has taken over the index {shown(address)}: nothing was changed.")
            store._note_sums(folder)
            remote.publish(address, folder)
        place.clear()
    if not len(index):
        from mmlesson.pixels import ImageError

        reasons = "; ".join(f"{name}: {why}" for name, why in index.skipped[:3])
        raise ImageError(f"None of the pictures can be read. {reasons}")
    return index


def _root_of(source) -> Path | None:
    if not isinstance(source, (str, os.PathLike)) or is_collection(source):
        return None
    return absolute(source)


def _steps(source, clip, captions, engine, worker, place, work, folder, table, lost) -> Iterator[Step]:
    known = Known(table, folder)
    listed = Listed(source, captions, known, place, work.fingerprint)
    parts = fragments.write_plan(place, listed.missing(), engine.fragment)
    total = listed.to_embed
    done, failed = listed.found, listed.found_failed
    yield Step("list", done, total, 0, failed, 0, 0.0)
    embedded = tried = 0
    started = time.monotonic()
    if parts:
        run = _with_ray if engine.name == "ray" else _here
        with contextlib.closing(run(parts, place, work, clip, engine, worker)) as results:
            for each in results:
                if each.stop:
                    raise AssetError(each.stop)
                if lost is not None and lost.is_set():
                    raise AssetError(f"Another process has taken over the index {shown(place.out)}: this one ends.")
                if not each.pictures:  # the cluster is there
                    started = time.monotonic()
                    continue
                done, embedded = done + each.pictures, embedded + each.embedded
                failed, tried = failed + each.failed, tried + each.embedded + each.failed
                yield Step("embed", done, total, embedded, failed, tried, time.monotonic() - started)
    seconds = time.monotonic() - started
    yield Step("commit", done, total, embedded, failed, tried, seconds)
    index = commit(clip, folder, table, place, work.fingerprint, listed, known)
    from mmlesson.search.index import EXACT_UP_TO

    if len(index) > EXACT_UP_TO:
        yield Step("cells", done, total, embedded, failed, tried, seconds)
        cells.make(folder, index._vectors, index._keys, index._sums)
        index._load()
    return index


# ------------------------------------------------------------------------------------------- embedding


class Worker:
    """An actor: it loads the CLIP once, and makes a fragment of each part of the plan that it is given."""

    def __init__(self, work: Work, threads: int = 1):
        self.work, self.stop = work, ""
        try:
            runtime.set_threads(threads)
            self.place = Place(work.out)
            self.clip = load_clip(work.clip)
            if self.clip.fingerprint() != work.fingerprint:
                self.stop = (
                    f"A worker of the cluster has other weights of {work.clip}: install the same ones everywhere."
                )
        except (AssetError, ValueError) as error:
            self.stop = f"A worker of the cluster cannot begin: {error}"

    def __call__(self, batch: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        for part in batch["part"]:
            rows = [] if self.stop else fragments.read_plan(self.place, str(part))
            for start in range(0, max(1, len(rows)), self.work.fragment):
                done = self.embed(rows[start : start + self.work.fragment])
                yield {name: np.array([value]) for name, value in asdict(done).items()}

    def embed(self, rows: list[Row]) -> Done:
        """What became of the rows. What no worker could do better is a sentence, and not an error: Ray would retry."""
        if self.stop:
            return Done(0, 0, 0, self.stop)
        try:
            return fragments.embed(self.place, self.work, self.clip, rows)
        except AssetError as error:
            return Done(0, 0, 0, str(error))


def _here(parts: Sequence[str], place: Place, work: Work, clip: CLIP, engine: Engine, worker) -> Iterator[Done]:
    """The plan, embedded by this process."""
    yield Done(0, 0, 0)
    for part in parts:
        rows = fragments.read_plan(place, part)
        for start in range(0, len(rows), engine.fragment):
            yield fragments.embed(place, work, clip, rows[start : start + engine.fragment])


def _with_ray(parts: Sequence[str], place: Place, work: Work, clip: CLIP, engine: Engine, worker) -> Iterator[Done]:
    """The plan, embedded by a cluster: what became of each fragment, as it is done."""
    with cluster(engine.address, engine.workers) as cores:
        import ray.data

        yield Done(0, 0, 0)
        workers = engine.workers or max(1, cores)
        data = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts)).map_batches(
            worker,
            fn_constructor_args=(work,),
            batch_size=1,
            num_cpus=WORKER_CPU,
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(parts))),
        )
        try:
            for row in data.iter_rows():
                yield Done(int(row["pictures"]), int(row["embedded"]), int(row["failed"]), str(row["stop"]))
        except ray.exceptions.RayError as error:
            raise AssetError(
                f"The cluster stopped ({reading.short(error)}): call it again, and it goes on from what is done."
            ) from error


@contextlib.contextmanager
def cluster(address: str | None = None, workers: int | None = None) -> Iterator[int]:
    """A Ray cluster, inside the context; gives the number of its cores.

    address: of one that runs ("auto", "ray://…", "10.0.0.1:6379"). None: the one that this process is connected with;
    else a small one is started on this machine, for itself alone (127.0.0.1, no page of its own, no statistics sent),
    and nothing of it stays behind. Raises AssetError where Ray is missing or no cluster answers.
    """
    private = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_worker_niceness": "0",  # else Ray's workers give way to every other process
        "RAY_BACKEND_LOG_LEVEL": "fatal",  # what matters comes as an error in Python
    }
    if address is None and "ray" not in sys.modules:  # what Ray reads when it is imported
        private["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # the address of a cluster is 127.0.0.1, as on those systems
        if "RAY_AUTH_MODE" not in os.environ:  # a token that ends with this process; Ray's own stays in ~/.ray
            private |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    for name, value in private.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise AssetError(NO_RAY) from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():
        _quiet()
        yield int(ray.cluster_resources().get("CPU", 1))
        return
    folder = _connect(address, workers)
    try:
        _quiet()
        yield int(ray.cluster_resources().get("CPU", 1))
    finally:
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _connect(address: str | None, workers: int | None) -> str | None:
    """Connect this process with a cluster; returns the folder of one that was started here for that."""
    import ray

    options = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    if address is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        options |= {"num_cpus": max(2, workers or cores), "include_dashboard": False, "object_store_memory": STORE}
        options |= {"_node_ip_address": "127.0.0.1"}
    for attempt in (1, 2, 3):
        before = _children()
        folder = None
        if address is None:
            folder = options["_temp_dir"] = tempfile.mkdtemp(prefix="mml-")  # short: Ray puts sockets there
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "lancedb fork support", RuntimeWarning)  # Ray's own do not use it
                ray.init(address=address or "local", **options)
            return folder
        except Exception as error:  # a plain Exception is of a machine so busy that Ray gave up waiting
            ray.shutdown()
            _end(_children() - before)
            if folder:
                shutil.rmtree(folder, ignore_errors=True)
            if attempt < 3 and address is None and type(error) is Exception:
                continue
            what = f"at {address}" if address else "on this machine"
            raise AssetError(
                f"No Ray cluster can be reached {what} ({reading.short(error)}): `ray status` says more."
            ) from error
    return None


def _children() -> set:
    import psutil

    return set(psutil.Process().children(recursive=True))


def _end(processes: set) -> None:
    """End what is left of a cluster of our own that did not start."""
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def _quiet() -> None:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = False
    context.target_max_block_size = BLOCK
