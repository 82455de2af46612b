"""Collections in lists, tables and at addresses, built by fragments in one process; `test_search_cluster` has Ray."""

import io
import json
import os
import resource
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from large_collections import bucket, clip, rows_of, server, write_pictures

from mmlesson import ImageIndex, cli, gates, world
from mmlesson.pixels import ImageError
from mmlesson.search import cluster, fragments, remote
from mmlesson.search.cluster import Engine, build_steps
from mmlesson.search.collection import rows_of as rows_in
from mmlesson.search.source import folder_entries

__all__ = ["bucket", "clip", "server"]  # fixtures

FEW = Engine("local", fragment=4)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"), 14, damaged=1)


@pytest.fixture(scope="module")
def local(pictures, small_model, tmp_path_factory):
    return ImageIndex.build(pictures, small_model, tmp_path_factory.mktemp("local") / "index")


def build(source, clip, out, engine=FEW):
    """The index, and the last step."""
    step, steps = None, build_steps(source, clip, out, engine=engine)
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value, step


def features_by_name(index) -> dict[str, torch.Tensor]:
    names = [path.rpartition("/")[2] for path in index._rows["path"].to_pylist()]
    return dict(zip(names, index._vectors, strict=True))


def same_pictures(index, local) -> None:
    ours, theirs = features_by_name(index), features_by_name(local)
    assert ours.keys() == theirs.keys() and len(ours) == len(index)
    assert max((ours[name] - theirs[name]).abs().max() for name in ours) <= 1e-5


# ------------------------------------------------------------------------------------------- folders


def test_the_rows_of_a_folder_are_its_entries_in_the_same_order(pictures, tmp_path):
    folder = write_pictures(tmp_path / "x", 0)
    for name in ("b/1.png", "b.png", "b-/2.png", "a.png", ".hidden/3.png", "B/4.jpg", "b/c/5.png", "note.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    (folder / "gone.png").symlink_to("nowhere")
    (folder / "round").symlink_to(folder)
    for root in (folder, pictures):
        rows, entries = list(rows_in(root)), folder_entries(root)
        assert [(row.path, row.size, row.modified, row.caption, row.error) for row in rows] == [
            (entry.path, entry.size, entry.modified, entry.caption, entry.error) for entry in entries
        ]


def test_fragments_make_the_index_that_a_plain_build_makes_and_follow_changes(tmp_path, clip):
    folder = write_pictures(tmp_path / "pictures", 14, damaged=1)
    plain = ImageIndex.build(folder, clip, tmp_path / "plain")
    index, step = build(folder, clip, tmp_path / "out")
    assert rows_of(index) == rows_of(plain) and (index._vectors - plain._vectors).abs().max() <= 1e-5
    assert index.skipped == plain.skipped and (step.embedded, step.failed) == (14, 1)

    write_pictures(tmp_path / "other", 20)
    (tmp_path / "other" / "019.png").rename(folder / "new.png")
    (tmp_path / "other" / "017.png").replace(folder / "001.png")
    (folder / "002.png").unlink()
    plain.update()
    index, step = build(folder, clip, tmp_path / "out")
    assert rows_of(index) == rows_of(plain) and (index._vectors - plain._vectors).abs().max() <= 1e-5
    assert (step.embedded, step.failed, step.total) == (2, 1, 3)
    index, step = build(folder, clip, tmp_path / "out")
    assert rows_of(index) == rows_of(plain) and step.embedded == 0
    assert str(ImageIndex.open(tmp_path / "out", clip).update()).startswith("0 added, 0 changed, 0 removed")


@pytest.mark.parametrize("what", ["scenes", "pictures"])
def test_a_list_gives_the_same_index(what, clip, tmp_path):
    items = world.sample(6, "train", 3)
    if what == "pictures":
        items = [scene.render(40) for scene in items]
    plain = ImageIndex.build(items, clip, tmp_path / "plain")
    index, _ = build(items, clip, tmp_path / "out")
    assert rows_of(index) == rows_of(plain) and (index._vectors - plain._vectors).abs().max() <= 1e-5
    hits = index.search(items[4] if what == "pictures" else items[4].render(64), k=2, min_score=-1)
    assert hits[0].id == 4 and hits[0].image.size == plain.search(hits[0], k=1)[0].image.size


# ------------------------------------------------------------------------------------ lists and tables


def names_of(pictures):
    return sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.[pj][np]g"))


def test_a_list_of_paths(pictures, local, clip, tmp_path):
    lines = [str(pictures / name) for name in names_of(pictures)]
    (tmp_path / "pictures.txt").write_text("# a list\n" + "\n".join([*lines, lines[0], "gone.png"]) + "\n")
    index, _ = build(tmp_path / "pictures.txt", clip, tmp_path / "out")
    same_pictures(index, local)
    assert [path.rpartition("/")[2] for path, _ in index.skipped] == ["000-damaged.jpg", "gone.png"]
    [hit] = index.search(local._vectors[3], k=1)
    assert hit.image.size == (24, 16) and hit.path is None and hit.address in lines
    assert str(hit).endswith(hit.address) or hit.caption
    assert hit.name == hit.address.rpartition("/")[2]


@pytest.mark.parametrize("kind", ["parquet", "folder of parquet", "lance"])
@pytest.mark.parametrize("column", ["path", "image"])
def test_a_table_of_paths_or_of_bytes(kind, column, pictures, local, clip, tmp_path):
    import lancedb

    names = names_of(pictures)
    table = pa.table({"path": names, "caption": [f"the {name}" for name in names]})
    if column == "image":
        table = table.append_column("image", pa.array([(pictures / name).read_bytes() for name in names]))
    else:
        table = table.set_column(0, "path", pa.array([str(pictures / name) for name in names]))
    source = tmp_path / f"table.{'lance' if kind == 'lance' else 'parquet'}"
    if kind == "lance":
        lancedb.connect(tmp_path).create_table("table", table)
    elif kind == "parquet":
        parquet.write_table(table, source, row_group_size=5)
    else:
        source.mkdir()
        parquet.write_table(table.slice(0, 6), source / "0.parquet")
        parquet.write_table(table.slice(6), source / "1.parquet")
    index, _ = build(source, clip, tmp_path / "out")
    same_pictures(index, local)
    assert len(index.skipped) == 1 and "damaged" in index.skipped[0][0]
    assert all(caption.startswith("the ") for caption in index._rows["caption"].to_pylist())


def test_a_source_that_is_none_is_a_sentence(clip, tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "no.parquet").write_bytes(b"nothing")
    parquet.write_table(pa.table({"number": [1]}), tmp_path / "numbers.parquet")
    for name, said in (
        ("empty.txt", "names no picture"),
        ("gone.txt", "cannot be read"),
        ("no.parquet", "is no table that can be read"),
        ("numbers.parquet", "has the columns number: name one of paths"),
    ):
        with pytest.raises(ImageError, match=said):
            build(tmp_path / name, clip, tmp_path / "out")
    with pytest.raises(ValueError, match="say where the index goes"):
        build(tmp_path / "empty.txt", clip, None)
    with pytest.raises(ValueError, match='engine is "local" or "ray", not \'spark\''):
        ImageIndex.build(tmp_path, clip, engine="spark")
    with pytest.raises(ValueError, match='are for engine="ray"'):
        ImageIndex.build(tmp_path, clip, workers=2)


# --------------------------------------------------------------------------------------------- faults


def test_two_builders_of_one_index_one_is_refused(pictures, clip, tmp_path):
    first = build_steps(pictures, clip, tmp_path / "out", engine=FEW)
    next(first)
    with pytest.raises(gates.AssetError, match="Another process is writing the index"):
        build(pictures, clip, tmp_path / "out")
    first.close()
    assert len(build(pictures, clip, tmp_path / "out")[0]) == 14


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
def test_a_full_disk_is_a_sentence_and_the_build_goes_on_later(pictures, local, clip, tmp_path):
    steps = build_steps(pictures, clip, tmp_path / "out", engine=FEW)
    [next(steps) for _ in range(3)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(gates.AssetError, match="larger than a file may be here"):
            next(steps)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    kept = len(list(fragments.whole(fragments.Place(tmp_path / "out"), clip.fingerprint())))
    assert kept == 2
    index, step = build(pictures, clip, tmp_path / "out")
    assert step.tried == 15 - 4 * kept and rows_of(index) == rows_of(local)


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
def test_a_disk_that_is_full_at_the_commit_loses_nothing(pictures, local, clip, tmp_path):
    steps = build_steps(pictures, clip, tmp_path / "out", engine=FEW)
    while next(steps).stage != "commit":
        pass
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))
    try:
        with pytest.raises(gates.AssetError, match="cannot be written"):
            next(steps)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    index, step = build(pictures, clip, tmp_path / "out")
    assert step.tried == 0 and rows_of(index) == rows_of(local)
    assert (index._vectors - local._vectors).abs().max() <= 1e-5


def test_a_fragment_that_is_not_whole_is_made_again(pictures, local, clip, tmp_path):
    steps = build_steps(pictures, clip, tmp_path / "out", engine=FEW)
    [next(steps) for _ in range(4)]
    steps.close()
    place = fragments.Place(tmp_path / "out")
    damaged, other, *_ = place.names("fragment-")
    content = place.read(damaged)
    (tmp_path / "out" / "building" / damaged).write_bytes(content[: len(content) // 2])
    index, step = build(pictures, clip, tmp_path / "out")
    assert rows_of(index) == rows_of(local) and step.tried == 15 - 8


def test_without_ray_a_sentence_says_what_to_install(pictures, clip, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(gates.AssetError, match=r'Ray is not installed.*`pip install "mmlesson\[cluster\]"`'):
        ImageIndex.build(pictures, clip, tmp_path / "out", engine="ray")


def test_without_a_cluster_at_the_address_a_sentence_says_so(monkeypatch):
    import ray

    def refuse(**options):
        assert options["address"] == "10.0.0.1:6379"
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(gates.AssetError, match="No Ray cluster can be reached at 10.0.0.1:6379 .nobody answers."):
        with cluster.cluster("10.0.0.1:6379"):
            pass


def test_a_worker_with_other_weights_stops_the_build(clip, other_folder, tmp_path):
    work = fragments.Work(str(tmp_path), f"local-dir:{other_folder}", clip.fingerprint(), 64, 4, False)
    assert "has other weights" in cluster.Worker(work).embed([]).stop
    work = fragments.Work(str(tmp_path), "local-dir:gone", clip.fingerprint(), 64, 4, False)
    assert "cannot begin" in cluster.Worker(work).embed([]).stop


# ---------------------------------------------------------------------------------------- at an address


@pytest.fixture
def address(bucket):
    return f"s3://{bucket.name}/index"


def test_an_index_at_an_address_is_read_on_another_machine(
    address, bucket, pictures, local, clip, tmp_path, monkeypatch
):
    index, _ = build(pictures, clip, address)
    assert rows_of(index) == rows_of(local)
    monkeypatch.setenv("MMLESSON_CACHE", str(tmp_path / "other machine"))
    there = ImageIndex.open(address, clip)
    assert rows_of(there) == rows_of(local) and torch.equal(there._vectors, index._vectors)
    assert there.folder.is_relative_to(tmp_path)
    before = [(path, path.stat().st_mtime_ns) for path in sorted(there.folder.rglob("*.lance"))]
    ImageIndex.open(address, clip)
    assert [(path, path.stat().st_mtime_ns) for path in sorted(there.folder.rglob("*.lance"))] == before

    # the copy is damaged: it is fetched again
    victim = next(there.folder.rglob("*.lance/data/*.lance"))
    victim.write_bytes(b"x" * victim.stat().st_size)
    assert rows_of(ImageIndex.open(address, clip)) == rows_of(local)

    # a file at the address is damaged: it is not believed
    name = next(path for path in bucket.system.ls(f"{bucket.name}/index/files") if bucket.system.size(path) > 100)
    bucket.system.pipe_file(name, b"x" * 101)
    monkeypatch.setenv("MMLESSON_CACHE", str(tmp_path / "third machine"))
    with pytest.raises(gates.AssetError, match="has changed there: build it again"):
        ImageIndex.open(address, clip)


def test_an_index_at_an_address_is_brought_up_to_date(address, bucket, clip, tmp_path, monkeypatch):
    folder = write_pictures(tmp_path / "pictures", 9)
    build(folder, clip, address)
    (folder / "004.png").unlink()
    write_pictures(folder, 11)
    monkeypatch.setenv("MMLESSON_CACHE", str(tmp_path / "other machine"))
    index, step = build(folder, clip, address)
    plain = ImageIndex.build(folder, clip, tmp_path / "plain")
    assert {row["path"] for row in rows_of(index)} == {row["path"] for row in rows_of(plain)} and len(index) == 11
    listed = json.loads(bucket.system.cat_file(f"{bucket.name}/index/index.json"))["files"]
    there = {path.rpartition("/")[2] for path in bucket.system.ls(f"{bucket.name}/index/files")}
    assert there == {total for total, _ in listed.values()}, "what no index needs is removed"


def test_two_builders_at_an_address_and_one_that_was_killed(address, bucket, pictures, clip, monkeypatch, tmp_path):
    first = build_steps(pictures, clip, address, engine=FEW)
    next(first)
    monkeypatch.setenv("MMLESSON_CACHE", str(tmp_path / "other machine"))
    with pytest.raises(gates.AssetError, match=f"Another process is writing the index {address} at this moment"):
        build(pictures, clip, address)
    first.close()
    lock = f"{bucket.name}/index/building/lock.json"
    assert not bucket.system.exists(lock)

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    owner = {"token": "x", "host": fragments.socket.gethostname(), "process": dead.pid, "started": 1.0, "time": 0.0}
    bucket.system.pipe_file(lock, json.dumps(owner).encode())
    assert len(build(pictures, clip, address)[0]) == 14 and not bucket.system.exists(lock)


def test_an_address_without_an_index_is_a_sentence(address, clip):
    with pytest.raises(gates.AssetError, match=f"There is no index at {address}: make one with `mmlesson index"):
        ImageIndex.open(address, clip)
    with pytest.raises(gates.AssetError, match="install what reads it"):
        ImageIndex.open("nowhere://bucket/index", clip)


def test_an_index_that_names_files_outside_is_refused(address, bucket, clip):
    listed = {"files": {"../../evil": ["0" * 64, 1]}}
    bucket.system.pipe_file(f"{bucket.name}/index/index.json", json.dumps(listed).encode())
    with pytest.raises(gates.AssetError, match="was not made by this package"):
        remote.opened(address, clip)


# -------------------------------------------------------------------------------------------- the command


def test_the_command_says_what_it_made(pictures, small_folder, tmp_path, capsys, monkeypatch):
    line = ["index", str(pictures), "--out", str(tmp_path / "out"), "--model", f"local-dir:{small_folder}"]
    assert cli.main(line) == 0
    said = capsys.readouterr()
    assert said.out.endswith(f"out: 14 pictures of local-dir:{small_folder}, 1 left out\n")
    assert "damaged.jpg" in said.err and "is not a picture" in said.err
    assert cli.main([*line, "--workers", "2"]) == 1
    assert "are for a cluster: add --engine ray" in capsys.readouterr().err
    got = {}
    monkeypatch.setattr(ImageIndex, "build", lambda *given, **options: got.update(options) or {}["stop"])
    with pytest.raises(KeyError):
        cli.main([*line, "--engine", "ray", "--address", "auto", "--workers", "3"])
    assert got == {"engine": "ray", "address": "auto", "workers": 3}


def test_progress_is_a_line_of_text(pictures, clip, tmp_path, monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    with cluster._bar() as show:
        import tqdm

        assert tqdm.tqdm._instances
        for each in tqdm.tqdm._instances:
            each.delay = each.mininterval = 0
        show(cluster.Step("embed", 50, 200, 40, 2, 42, 10.0))
        for each in tqdm.tqdm._instances:
            each.refresh()
    assert "50 of 200 pictures, 4.2 a second, 0:36 left, 2 left out" in shown.getvalue()
    assert cluster.Step("embed", 0, 200, 0, 0, 0, 0.0).seconds_left is None
