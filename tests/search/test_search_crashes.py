"""What survives: crashes, full disks, other processes, damaged files, the CLIP of another index."""

import os
import re
import signal
import threading
from pathlib import Path

import pytest
import torch
from colours import Colours, assert_equal_indexes, names, noise
from forked import Forked

from mmlesson import ImageIndex
from mmlesson.gates import AssetError
from mmlesson.pixels import ImageError
from mmlesson.search import Update, store, vectors

# --------------------------------------------------------------------------- crashes and neighbours

SLOW = """
import sys, time
sys.path.insert(0, {tests!r})
from mmlesson import ImageIndex
from mmlesson.search import store, synchronise
from colours import Colours
synchronise.COMMIT_EVERY = (0.0, 1)  # each batch
class Slow(Colours):
    def encode_prepared(self, prepared):
        print("batch", flush=True)
        time.sleep(0.15)
        return super().encode_prepared(prepared)
clip = Slow()
{work}
print("done", flush=True)
"""


def start(work: str) -> Forked:
    return Forked(SLOW.format(tests=str(Path(__file__).parent.parent), work=work))


def after_batches(process: Forked, n: int) -> None:
    for _ in range(n):
        assert process.stdout.readline() == "batch\n", process.communicate()


def test_a_process_killed_while_building_loses_little(clip, folder, tmp_path):
    work = f"ImageIndex.build({str(folder)!r}, clip, {str(tmp_path / 'index')!r}, batch_size=2)"
    process = start(work)
    after_batches(process, 4)
    process.kill()
    process.communicate()
    index = ImageIndex.build(folder, clip, tmp_path / "index", batch_size=2)
    assert 1 <= sum(clip.batches) <= 8, "what was committed is not embedded again"
    assert_equal_indexes(index, ImageIndex.build(folder, Colours(), tmp_path / "fresh"))


def test_a_process_killed_while_updating_leaves_an_index_that_works(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    for number in range(10, 18):
        noise(number).save(folder / f"{number}.png")
    noise(50).save(folder / "0.png")
    (folder / "1.png").unlink()
    process = start(f"ImageIndex.open({str(tmp_path / 'index')!r}, clip).update(batch_size=2)")
    after_batches(process, 3)
    process.kill()
    process.communicate()
    between = ImageIndex.open(tmp_path / "index", clip)
    assert 10 <= len(between) < 18 and len(between.search("red", k=50)) == len(between)
    clip.batches.clear()
    assert index.update().embedded == sum(clip.batches) <= 7
    assert_equal_indexes(index, ImageIndex.build(folder, Colours(), tmp_path / "fresh"))


def test_a_process_killed_before_its_first_commit_is_as_if_it_had_not_been(clip, folder, tmp_path):
    (tmp_path / "index" / "pictures.lance" / "_versions").mkdir(parents=True)  # all that it came to
    with pytest.raises(AssetError, match="There is no index of colours"):
        ImageIndex.open(tmp_path / "index", clip)
    assert (tmp_path / "index" / "pictures.lance").is_dir(), "a reader removes nothing: the writer may be at work"
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    assert len(index) == 10


def test_a_first_build_killed_with_its_table_still_empty_goes_on(folder, tmp_path):
    """An empty table is falsy: `open_table(…) or create_table(…)` failed for ever with "Table already exists"."""
    process = start(f"ImageIndex.build({str(folder)!r}, clip, {str(tmp_path / 'index')!r}, batch_size=2)")
    after_batches(process, 1)  # it prints before it embeds: nothing can be committed yet
    process.kill()
    process.communicate()
    table = store.open_table(tmp_path / "index")
    assert table is not None and not table, "the table is there, and it is empty"
    index = ImageIndex.build(folder, Colours(), tmp_path / "index")
    assert_equal_indexes(index, ImageIndex.build(folder, Colours(), tmp_path / "fresh"))


def test_a_first_build_that_fails_before_its_first_commit_goes_on(clip, folder, tmp_path, monkeypatch):
    def broken(prepared):
        raise RuntimeError("the CLIP has failed")

    with monkeypatch.context() as patch:
        patch.setattr(clip, "encode_prepared", broken)
        with pytest.raises(RuntimeError, match="the CLIP has failed"):
            ImageIndex.build(folder, clip, tmp_path / "index")
    assert len(ImageIndex.open(tmp_path / "index", clip)) == 0
    assert len(ImageIndex.build(folder, clip, tmp_path / "index")) == 10


def test_ctrl_c_keeps_what_is_done_and_says_so(clip, folder, tmp_path, monkeypatch):
    encode = clip.encode_prepared

    def interrupted(prepared):
        if sum(clip.batches) >= 6:
            raise KeyboardInterrupt
        return encode(prepared)

    monkeypatch.setattr(clip, "encode_prepared", interrupted)
    with pytest.raises(
        KeyboardInterrupt, match=r"^6 of 10 new pictures are in the index .*; the same call goes on from there"
    ):
        ImageIndex.build(folder, clip, tmp_path / "index", batch_size=2)
    assert len(ImageIndex.open(tmp_path / "index", clip)) == 6
    monkeypatch.undo()
    clip.batches.clear()
    assert_equal_indexes(
        ImageIndex.build(folder, clip, tmp_path / "index"), ImageIndex.build(folder, Colours(), tmp_path / "fresh")
    )
    assert sum(clip.batches) == 4


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("lance error: No space left on device")]
)
def test_a_full_disk_is_a_sentence_and_loses_nothing(clip, folder, tmp_path, error, monkeypatch):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    noise(20).save(folder / "20.png")

    def full(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(type(index._table), "add", full)
        with pytest.raises(AssetError, match="cannot be written .*No space left on device.*: free some space"):
            index.update()
    assert len(index.search("red", k=50)) == 10 == len(ImageIndex.open(tmp_path / "index", clip))
    assert index.update().added == 1


def test_a_disk_without_room_to_tidy_up_still_searches(clip, folder, tmp_path, monkeypatch):
    def full(*_):
        raise AssetError("no space")

    index = ImageIndex.build(folder, clip, tmp_path / "index")
    (folder / "0.png").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(vectors.gates, "write_atomically", full)
        assert index.update().removed == 1
    assert len(vectors.load(tmp_path / "index", clip.dim).keys) == 10, "that of the lost picture is there"
    again = ImageIndex.open(tmp_path / "index", clip)
    assert names(again.search("red", k=50)) == names(index.search("red", k=50)) and len(again) == 9
    index.update()
    assert len(vectors.load(tmp_path / "index", clip.dim).keys) == 9


@pytest.mark.parametrize("moment", ["after the embeddings", "after their keys"])
def test_embeddings_without_a_picture_do_no_harm(clip, folder, tmp_path, moment, monkeypatch):
    """What a process leaves that is killed between two writes."""
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    extra = torch.full((3, clip.dim), 9.0)
    if moment == "after their keys":
        vectors.append(tmp_path / "index", extra)
    else:
        with open(tmp_path / "index" / "vectors-0.f32", "ab") as file:
            file.write(extra.numpy().tobytes()[:-5])
    noise(30).save(folder / "30.png")
    assert len(index.search("red", k=50)) == 10 == len(ImageIndex.open(tmp_path / "index", clip))
    assert index.update().added == 1
    assert_equal_indexes(index, ImageIndex.build(folder, Colours(), tmp_path / "fresh"))
    assert len(vectors.load(tmp_path / "index", clip.dim).keys) == 11


def test_no_key_is_given_twice(clip, tmp_path):
    given = []
    for kept in (2, 0, 1, 3):
        keys = vectors.append(tmp_path, torch.rand(3, clip.dim))
        given += keys.tolist()
        vectors.compact(tmp_path, clip.dim, vectors.load(tmp_path, clip.dim).keys[:kept])
    assert len(set(given)) == 12


def test_a_reader_of_an_older_version_goes_on_when_that_is_cleaned_up(clip, tmp_path):
    pictures = [noise(number) for number in range(12)]
    writer = ImageIndex.build(pictures, clip, tmp_path / "index", captions=[f"old {n}" for n in range(12)])
    reader = ImageIndex.open(tmp_path / "index", clip)
    before = [(hit.id, hit.score) for hit in reader.search("red", k=20)]
    ImageIndex.build([*pictures[:6], *(noise(40 + n) for n in range(3))], clip, tmp_path / "index")
    writer.optimise()  # removes the version that the reader has opened, and its files
    assert [(hit.id, hit.score) for hit in reader.search("red", k=20)] == before
    assert {hit.id for hit in reader.search("red", k=20, where="id >= 0")} == set(range(6)), "what has not changed"
    assert reader.search(pictures[2], k=1)[0].image.size == pictures[2].size
    with pytest.raises(ImageError, match="is not in the index any more"):
        reader.search(pictures[11], k=1)[0].image  # noqa: B018 - asking is what raises


def test_two_processes_search_while_one_writes(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    for number in range(10, 22):
        noise(number).save(folder / f"{number}.png")
    process = start(f"ImageIndex.open({str(tmp_path / 'index')!r}, clip).update(batch_size=2)")
    after_batches(process, 2)
    assert len(index.search("red", k=50)) == 10, "this one still sees the version that it opened"
    assert len(index.search("red", k=50, where="path LIKE '%.png'")) == 10
    during = ImageIndex.open(tmp_path / "index", clip)
    assert 10 <= len(during) <= 22 and len(during.search("red", k=50)) == len(during)
    assert process.wait() == 0, process.communicate()
    assert len(index.search("red", k=50)) == 10 and len(ImageIndex.open(tmp_path / "index", clip)) == 22


def test_a_second_writer_waits_for_the_first(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    for number in range(10, 16):
        noise(number).save(folder / f"{number}.png")
    process = start(f"ImageIndex.open({str(tmp_path / 'index')!r}, clip).update(batch_size=2)")
    after_batches(process, 1)
    clip.batches.clear()
    done = index.update()  # returns once the other one has finished
    assert done == Update(added=0, changed=0, removed=0, unchanged=16, embedded=0, skipped=0) and clip.batches == []
    assert process.wait() == 0
    assert len(index) == 16


def test_two_first_builds_at_once_make_one_index(folder, tmp_path):
    """As two kernels that run the same notebook: one waits, and then finds everything there."""
    work = f"ImageIndex.build({str(folder)!r}, clip, {str(tmp_path / 'index')!r}, batch_size=2)"
    processes = [start(work) for _ in range(3)]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert sorted(output.count("batch") for output, _ in outputs) == [0, 0, 5], "no picture is embedded twice"
    assert_equal_indexes(
        ImageIndex.open(tmp_path / "index", Colours()), ImageIndex.build(folder, Colours(), tmp_path / "fresh")
    )


def test_two_threads_build_and_update_one_folder(folder, tmp_path):
    """Two widgets of one kernel: the lock holds between threads too."""
    failed = []

    def work() -> None:
        try:
            index = ImageIndex.build(folder, Colours(), tmp_path / "index", batch_size=2)
            assert index.update().unchanged == 10
            assert len(index.search("red", k=50)) == 10
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and len(ImageIndex.open(tmp_path / "index", Colours())) == 10


def test_a_search_goes_on_while_another_process_builds_updates_and_compacts(clip, folder, tmp_path):
    """It opens the index again and again, and finds as many pictures as were there before or come after."""
    ImageIndex.build(folder, clip, tmp_path / "index")
    process = start(f"""
import pathlib
from colours import noise
index = ImageIndex.open({str(tmp_path / "index")!r}, clip)
folder = pathlib.Path({str(folder)!r})
for turn in range(4):
    for number in range(100 * turn + 100, 100 * turn + 103):
        noise(number).save(folder / f"{{number}}.png")
    index.update(batch_size=1)
    (folder / f"{{100 * turn + 100}}.png").unlink()
    index.update()
    index.optimise()
""")
    seen = []
    while process.poll() is None:
        index = ImageIndex.open(tmp_path / "index", clip)
        hits = index.search("red", k=100, where="size > 0" if len(seen) % 2 else None)
        assert len({hit.path for hit in hits}) == len(hits) and all(-1.001 <= hit.score <= 1.001 for hit in hits)
        seen.append(len(index))
    assert process.returncode == 0, process.communicate()
    assert len(seen) > 3 and set(seen) <= set(range(10, 21)) and seen[0] <= seen[-1]
    assert_equal_indexes(
        ImageIndex.open(tmp_path / "index", clip), ImageIndex.build(folder, Colours(), tmp_path / "fresh")
    )


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_in_a_terminal_ends_with_a_sentence(folder, tmp_path):
    process = start(f"ImageIndex.build({str(folder)!r}, clip, {str(tmp_path / 'index')!r}, batch_size=2)")
    after_batches(process, 2)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    assert "done" not in output and re.search(r"KeyboardInterrupt: \d of 10 new pictures are in the index", errors)
    assert 2 <= len(ImageIndex.open(tmp_path / "index", Colours())) < 10


def test_threads_may_search_at_once(clip, folder, tmp_path):
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    expected, found = names(index.search("red")), []
    threads = [
        threading.Thread(target=lambda: found.append(names(index.search("red", where="size > 0")))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8


# ----------------------------------------------------------------------------- what does not belong


def test_an_index_of_another_clip_is_refused(clip, folder, tmp_path):
    ImageIndex.build(folder, clip, tmp_path / "index")
    for other, said in (
        (Colours("shapes"), r"made with load_clip\('colours'\)"),
        (Colours(salt="2"), "other weights of the same name"),
    ):
        with pytest.raises(AssetError, match=said):
            ImageIndex.open(tmp_path / "index", other)
        with pytest.raises(AssetError, match=said):
            ImageIndex.build(folder, other, tmp_path / "index")
        assert other.batches == []


def test_two_clips_have_two_indexes_of_one_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MMLESSON_CACHE", str(tmp_path / "cache"))
    one, other = (ImageIndex.build(folder, Colours(name)) for name in ("one", "other"))
    assert one.folder != other.folder


def test_no_index_and_an_old_one_are_a_sentence(clip, folder, tmp_path, monkeypatch):
    with pytest.raises(AssetError, match=r"There is no index of colours at .*: make one with ImageIndex.build"):
        ImageIndex.open(folder, clip)
    with monkeypatch.context() as patch:
        patch.setattr(store, "FORMAT", 0)
        ImageIndex.build(folder, clip, tmp_path / "index")
    with pytest.raises(AssetError, match="not made by this version of mmlesson: delete it"):
        ImageIndex.open(tmp_path / "index", clip)


def test_a_damaged_table_is_a_sentence(clip, folder, tmp_path):
    ImageIndex.build(folder, clip, tmp_path / "index")
    for file in (tmp_path / "index").rglob("*.manifest"):
        file.write_bytes(b"damaged")
    with pytest.raises(AssetError, match="is damaged .*: build it again, with `mmlesson search`"):
        ImageIndex.open(tmp_path / "index", clip)
    with pytest.warns(UserWarning, match="was damaged, and is made again"):
        index = ImageIndex.build(folder, clip, tmp_path / "index")
    assert_equal_indexes(index, ImageIndex.build(folder, Colours(), tmp_path / "fresh"))


@pytest.mark.parametrize("file", ["vectors-0.f32", "keys-0.i64"])
@pytest.mark.parametrize(("left", "rows"), [(None, 0), (0, 0), (0.55, 5)])
def test_lost_embeddings_are_a_sentence_and_are_made_again(clip, folder, tmp_path, file, left, rows):
    ImageIndex.build(folder, clip, tmp_path / "index")
    path = tmp_path / "index" / file
    if left is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
    with pytest.raises(AssetError, match=f"has lost {10 - rows} of 10 embeddings\\): build it again"):
        ImageIndex.open(tmp_path / "index", clip)
    clip.batches.clear()
    index = ImageIndex.build(folder, clip, tmp_path / "index")
    assert sum(clip.batches) == 10 - rows, "what is left is not embedded again"
    assert_equal_indexes(index, ImageIndex.build(folder, Colours(), tmp_path / "fresh"))
