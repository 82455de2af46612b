"""Folders and files that this user may not read, enter or write: a sentence each, and nothing is lost."""

import os

import pytest
from permissions import run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has no such permissions")

PARTS = """
import contextlib, io, os, pathlib
from colours import Colours, noise, ten_pictures
from mmlesson import ImageIndex, cli, gates, pixels

here = pathlib.Path.cwd()
folder = ten_pictures(here)
clip = Colours()


def said(work):
    "The sentence that some work ends with."
    try:
        result = work()
    except (gates.AssetError, pixels.ImageError) as error:
        return str(error)
    return f"no error: {result}"


def main(*words):
    "The exit status of a command, and what it printed."
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            status = cli.main(words)
        except SystemExit as ended:
            status = ended.code
    return status, out.getvalue()


@contextlib.contextmanager
def closed(path, mode=0):
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)

"""


def passes(code: str, folder) -> None:
    done = run(PARTS + code, folder)
    assert done.returncode == 0, done.stderr[-3000:]


def test_permissions_hold_in_here(tmp_path):
    passes("with closed(folder): assert not os.access(folder, os.R_OK)", tmp_path)


def test_pictures_that_may_not_be_read_are_named_and_those_of_the_index_stay(tmp_path):
    passes(
        """
index = ImageIndex.build(folder, clip, here / "index")
(folder / "1.txt").write_text("a caption")
with closed(folder / "below"), closed(folder / "0.png"), closed(folder / "1.txt"):
    build = ImageIndex.build(folder, clip, here / "other")
    assert len(build) == 7 and [name for name, _ in build.skipped] == ["0.png", "below/"], build.skipped
    assert all("permission denied" in why for _, why in build.skipped)
for mode in (0, 0o300):
    with closed(folder, mode):
        for work in (index.update, lambda: ImageIndex.build(folder, clip, here / "index")):
            assert "cannot be read (permission denied)" in said(work), said(work)
            assert len(ImageIndex.open(here / "index", clip)) == 10, "an update of nothing would drop all of them"
assert index.update().unchanged == 9  # 1.png has a caption now
""",
        tmp_path,
    )


def test_an_index_that_may_not_be_read_or_written_is_a_sentence(tmp_path):
    passes(
        """
place = here / "index"
index = ImageIndex.build(folder, clip, place)
works = (lambda: ImageIndex.open(place, clip), lambda: ImageIndex.build(folder, clip, place))
everything = sorted(place.rglob("*"))
for path in [place, *everything]:
    needed = path.suffix in ("", ".lance", ".manifest", ".f32", ".i64") and "_transactions" not in path.parts
    if not needed:
        continue  # a hint or a record that nobody has to read, or what is made again
    with closed(path):
        found = [said(work) for work in works]
    assert all("cannot be" in one and "ermission denied" in one for one in found), (path, found)
    assert not any("is damaged" in one for one in found), (path, found)
assert len(ImageIndex.open(place, clip).search("red", k=50)) == 10, "nothing was removed or made again"
noise(20).save(folder / "20.png")
with contextlib.ExitStack() as stack:  # as one that someone else made for a whole class
    for path in [*reversed(sorted(place.rglob("*"))), place]:
        stack.enter_context(closed(path, 0o555 if path.is_dir() else 0o444))
    assert len(ImageIndex.open(place, clip).search("red", k=50)) == 10, "it can be searched"
    for work in (index.update, index.optimise, lambda: index.calibrate(["red"] * 20)):
        assert "permission denied" in said(work), said(work)
assert index.update().added == 1
""",
        tmp_path,
    )


def test_every_place_that_a_command_is_given_is_a_sentence_where_it_is_closed(tmp_path):
    passes(
        """
shut = here / "shut"
shut.mkdir()
picture = folder / "0.png"
protected = here / "protected.png"
protected.write_bytes(b"precious")
protected.chmod(0o444)
with closed(shut):
    lines = [
        (2, "world", "--sheet", "shut/a.png"), (2, "world", "--sheet", "shut/b/a.png"),
        (2, "world", "--sheet", "protected.png"), (2, "lessons", "--out", "shut/a"),
        (2, "train", "clip", "--out", "shut/a"), (2, "train", "clip", "--state", "shut/a"),
        (2, "train", "photos", "--data", "shut/a"), (2, "eval", "photos", "--data", "shut/a"),
        (2, "search", "pictures", "x", "--grid", "shut/a.png"), (2, "download", "ViT-B-32", "--to", "shut/a"),
        (1, "search", "shut", "a cat"), (1, "search", "pictures", "--like", "shut/a.png"),
        (1, "search", "pictures", "a cat", "--model", "local-dir:shut"), (1, "models", "--folder", "shut/a"),
        (1, "paint", "a cat", "--start", "shut/a.png"),
    ]
    for status, *words in lines:
        found, printed = main(*words)
        assert found == status and "mmlesson" in printed.splitlines()[-1], (words, found, printed)
        assert "ermission" in printed or "protected from writing" in printed, (words, printed)
assert protected.read_bytes() == b"precious"
os.environ["MMLESSON_CACHE"] = str(shut)
with closed(shut, 0o555):
    assert "MMLESSON_CACHE" in main("search", "pictures", "a cat")[1]
""",
        tmp_path,
    )
