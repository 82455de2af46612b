"""An index that a Ray cluster on this machine builds is the one that a single process builds, whatever is killed.

The cluster is started once for the file, and each build by it starts as few workers as show what is to be shown.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from counting_worker import CountingWorker
from large_collections import COLUMNS, bucket, clip, rows_of, server, write_pictures

from mmlesson import ImageIndex
from mmlesson.measure import speed_scale
from mmlesson.search import cluster, fragments, remote
from mmlesson.search.cluster import Engine, build_steps

__all__ = ["bucket", "clip", "server"]  # fixtures

TESTS = Path(__file__).resolve().parent
PYTHONPATH = os.pathsep.join(map(str, (TESTS, TESTS.parents[1])))


@pytest.fixture(scope="module")
def running(server, tmp_path_factory):
    """A cluster of two cores, which knows the server of S3; afterwards nothing of it is left."""
    before = set(psutil.Process().children(recursive=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PYTHONPATH)  # the workers look there for CountingWorker
        with cluster.cluster(None, 2) as cores:
            import ray

            assert cores == 2
            folder = Path(ray._private.worker._global_node.get_session_dir_path()).parent
            assert folder.is_dir() and len(str(folder)) < 40
            yield ray.get_runtime_context().gcs_address
        left = [process for process in psutil.Process().children(recursive=True) if process not in before]
        gone, alive = psutil.wait_procs(left, timeout=30)
        assert [process.name() for process in alive if "ray" in process.name()] == []
        assert not folder.exists() and not ray.is_initialized()


def finished(steps) -> tuple[list, ImageIndex]:
    """All steps of a build, and its index."""
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value


def counted(out: Path) -> list[int]:
    return [int(line) for line in out.with_suffix(".counts").read_text().split()]


# ------------------------------------------------------------------------------------- two workers, one is killed


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """36 pictures in folders, some with captions, and two files that are damaged."""
    return write_pictures(tmp_path_factory.mktemp("pictures"), 36, damaged=2)


@pytest.fixture(scope="module")
def local(pictures, small_model, tmp_path_factory):
    return ImageIndex.build(pictures, small_model, tmp_path_factory.mktemp("local") / "index")


@pytest.fixture(scope="module")
def built(running, pictures, small_model, tmp_path_factory):
    """Steps and index of a build by two workers, one of which is killed at its first fragment."""
    out = tmp_path_factory.mktemp("cluster") / "index"
    out.with_suffix(".kill").touch()
    engine = Engine("ray", workers=2, fragment=4)
    return finished(build_steps(pictures, small_model, out, engine=engine, worker=CountingWorker))


def test_two_workers_make_the_index_that_one_process_makes(built, local, clip):
    index = built[1]
    assert rows_of(index) == rows_of(local) and len(index) == 36 and index.source == local.source
    assert (index._vectors - local._vectors).abs().max() <= 1e-5
    for query in ("a red apple", local._vectors[5]):
        ours, theirs = index.search(query, k=7, min_score=-1), local.search(query, k=7, min_score=-1)
        assert [hit.path for hit in ours] == [hit.path for hit in theirs]
        assert [hit.score for hit in ours] == pytest.approx([hit.score for hit in theirs], abs=1e-5)
    again = ImageIndex.open(index.folder, clip)
    assert rows_of(again) == rows_of(local) and torch.equal(again._vectors, index._vectors)
    assert not (index.folder / "building").exists()


def test_a_worker_that_was_killed_costs_nothing_but_time(built):
    index = built[1]
    assert not index.folder.with_suffix(".kill").exists(), "a worker was killed"
    assert sum(counted(index.folder)) == 36, "every picture was embedded once"
    paths = index._rows["path"].to_pylist()
    assert len(set(paths)) == len(paths) == 36, "nothing is lost, nothing is there twice"


def test_damaged_pictures_are_listed_with_reasons(built, local):
    assert built[1].skipped == local.skipped and len(local.skipped) == 2
    assert all("is not a picture that can be read" in reason for _, reason in built[1].skipped)


def test_steps_say_how_far_it_is(built):
    steps = built[0]
    assert [steps[0].stage, steps[-1].stage] == ["list", "commit"] and {s.stage for s in steps[1:-1]} == {"embed"}
    done = [step.done for step in steps]
    assert done == sorted(done) and done[0] == 0 and done[-1] == steps[-1].total == 38
    assert (steps[-1].embedded, steps[-1].failed) == (36, 2)
    middle = steps[len(steps) // 2]
    assert middle.per_second > 0 and middle.seconds_left > 0
    assert f"{middle.done} of 38 pictures, " in str(middle) and " a second, " in str(middle) and " left" in str(middle)


# --------------------------------------------------------------------------------------------- the driver is killed

DRIVER = """
import sys
from counting_worker import CountingWorker
from mmlesson import load_clip
from mmlesson.search.cluster import Engine, build_steps
pictures, model, out, address = sys.argv[1:]
engine = Engine("ray", address, workers=1, fragment=4)
for step in build_steps(pictures, load_clip(model, "cpu"), out, engine=engine, worker=CountingWorker):
    print(step.stage, step.done, flush=True)
"""


def test_a_driver_that_was_killed_goes_on_from_what_is_done(running, pictures, local, clip, small_folder, tmp_path):
    out = tmp_path / "index"
    arguments = [str(pictures), f"local-dir:{small_folder}", str(out), running]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    command = [sys.executable, "-c", DRIVER, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment) as it:
        for line in it.stdout:
            if line.startswith("embed"):
                it.send_signal(signal.SIGKILL)
                break
    place = fragments.Place(out)
    assert it.returncode == -signal.SIGKILL
    kept = {name: len(table) for name, table in fragments.whole(place, clip.fingerprint())}
    assert 4 <= sum(kept.values()) < 38, "it was killed in the middle"

    steps, index = finished(build_steps(pictures, clip, out, engine=Engine("local", fragment=4)))
    done_before = sum(kept.values())
    assert steps[0].done >= done_before and steps[-1].done == 38
    assert steps[-1].tried <= 38 - done_before, "nothing is embedded twice but the fragment under way"
    assert 36 <= sum(counted(out)) + steps[-1].embedded <= 36 + 4
    assert rows_of(index) == rows_of(local) and (index._vectors - local._vectors).abs().max() <= 1e-5
    assert len(index.skipped) == 2


# --------------------------------------------------------------------------------------------- at an address


def test_a_cluster_reads_and_writes_at_an_address(running, bucket, pictures, local, clip):
    bucket.system.put(str(pictures), f"{bucket.name}/pictures", recursive=True)
    out = f"s3://{bucket.name}/index"
    source = f"s3://{bucket.name}/pictures"
    index = ImageIndex.build(source, clip, out, engine="ray", workers=1)
    assert len(index) == 36 and len(index.skipped) == 2 and index.source is None
    by_path = {path.removeprefix(f"{source}/"): place for place, path in enumerate(index._rows["path"].to_pylist())}
    places = [by_path[path] for path in local._rows["path"].to_pylist()]
    assert (index._vectors[places] - local._vectors).abs().max() <= 1e-5
    assert sorted(path.rpartition("/")[2] for path in bucket.system.ls(f"{bucket.name}/index")) == [
        "files",
        "index.json",
    ]
    opened = ImageIndex.open(out, clip)
    assert opened._select(*COLUMNS).equals(index._select(*COLUMNS)) and opened.folder == remote.copy_of(out, clip)


# ------------------------------------------------------------------------------------------- the benchmark


def test_the_benchmark_measures_a_build_by_a_cluster(running, pictures, local, clip, small_folder, tmp_path):
    found = speed_scale.build_by_ray(str(pictures), str(tmp_path / "index"), "1", f"local-dir:{small_folder}")
    assert found["seconds"] > found["start_s"] and found["per_second"] > 0 and 0.05 < found["memory_gb"] < 3
    assert speed_scale.same_index(clip, local.folder, tmp_path / "index") <= 1e-5
