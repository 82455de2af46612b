"""Results that leave the program: checked before the work, whole or not at all, and not lost where a place fails."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from test_cli import every_option

from mmlesson import cli, commands, gates, painter, pixels
from mmlesson.pixels import ImageError

PLACES = [(words, action) for words, action in every_option() if action.metavar in ("FILE", "DIR")]
NEEDED = {
    "download": ["ViT-B-32"],
    "grade": ["class"],
    "search": ["pictures", "a cat"],
    "paint": ["a cat"],
    "draw": ["a cat"],
}


def refused(words, action, value: str, capsys) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, *NEEDED.get(words[0], []), f"{action.option_strings[-1]}={value}"])
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "words, action", [pytest.param(*pair, id=f"{' '.join(pair[0])} {pair[1].dest}") for pair in PLACES]
)
def test_no_place_is_taken_that_cannot_hold_the_result(words, action, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    good = action.metavar == "FILE" and next(
        ending for ending in (".png", ".gif", ".md", ".csv") if not _refuses(action, f"result{ending}")
    )
    ending = good or ""
    (tmp_path / f"folder{ending}").mkdir(exist_ok=True)
    values = [
        f"{'x' * 254}{ending}"[-254:],
        f"file/result{ending}",
        f"{'ab/' * 2000}result{ending}",
        "a\0b" + ending,
        "",
    ]
    values += [f"folder{ending}", "result.xyz", "result", f"dev{ending}"] if good else ["file"]
    os.symlink("/dev/null", tmp_path / f"dev{ending}")
    for value in values:
        said = refused(words, action, value, capsys)
        assert said.isprintable() and f"argument --{action.dest}" in said and len(said) < 300, value
    assert len(list(tmp_path.iterdir())) == 3, "nothing is written"


def _refuses(action, value: str) -> bool:
    try:
        action.type(value)
    except Exception:
        return True
    return False


# ------------------------------------------------------------------------------------- what formats can hold


@pytest.mark.parametrize(
    "ending, most", [(ending, most) for ending, most in pixels.LARGEST_SIDE.items() if ending not in (".png", ".mp4")]
)
def test_the_largest_side_is_what_the_format_holds(ending, most, tmp_path):
    path = pixels.save_image(Image.new("RGB", (most, 1)), tmp_path / f"wide{ending}")
    with Image.open(path) as image:
        assert image.size == (most, 1)
    pixels.check_size(path, most, most)
    with pytest.raises(ImageError, match="choose another ending, such as .png"):
        pixels.check_size(path, 1, most + 1)
    with pytest.raises(Exception, match=r"."):  # the format itself refuses, or breaks
        Image.new("RGB", (most + 10_000, 1)).save(tmp_path / f"wider{ending}")


def test_a_picture_that_the_format_cannot_hold_is_kept_as_png(tmp_path):
    with pytest.raises(gates.KeptElsewhereError, match=r"16,383 a side.* The picture is in .*wide\.png"):
        pixels.save_image(Image.new("RGB", (16_384, 2), "red"), tmp_path / "wide.webp")
    with Image.open(tmp_path / "wide.png") as kept:
        assert kept.size == (16_384, 2)


def test_a_result_whose_place_is_gone_is_kept_in_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(gates.KeptElsewhereError, match=r"cannot be written .* The result is in .*cat-\w{6}\.png\."):
        pixels.save_image(Image.new("RGB", (9, 9), "red"), tmp_path / "file" / "cat.png")
    (kept,) = tmp_path.glob("cat-*.png")
    assert Image.open(kept).size == (9, 9) and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOENT, errno.EROFS])
def test_whatever_the_system_says_is_a_sentence(number, tmp_path):
    path = tmp_path / "a\nb.png"
    path.write_bytes(b"old")

    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise OSError(number, os.strerror(number), str(temporary))

    with pytest.raises(gates.AssetError, match=r"a\\nb\.png'.*(written|full)") as said:
        gates.write_atomically(path, fail)
    assert str(said.value).isprintable() and path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_where_nothing_can_be_written_both_are_said(tmp_path, monkeypatch):
    def fail(path, data):
        raise gates.AssetError("The disk is full.")

    monkeypatch.setattr(gates, "write_atomically", fail)
    with pytest.raises(gates.AssetError, match="The disk is full. No other folder took it either."):
        gates.write_result(tmp_path / "x.png", b"")


LIMITED = """
import resource, sys
from mmlesson import cli, world
world.scene("cat").render(64)  # the sprites are in the cache
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(cli.main(["world", "--sheet", sys.argv[2]]))
"""


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
@pytest.mark.parametrize("size", [0, 1000, 30_000])
def test_a_full_disk_is_a_sentence_and_loses_nothing(size, tmp_path):
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(size), str(sheet)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("mmlesson: ") and "larger than a file may be" in line and "took it either" in line
    assert sheet.read_bytes() == b"old" and list(tmp_path.iterdir()) == [sheet]


KILLED = """
import os, signal, sys
from mmlesson import gates
def half(path):
    path.write_bytes(b"new, but only hal")
    os.kill(os.getpid(), signal.SIGKILL)
gates.write_atomically(sys.argv[1], half)
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_a_kill_while_a_file_is_written_leaves_the_old_one_and_the_next_write_clears_up(tmp_path):
    path = tmp_path / "cat.png"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL and path.read_bytes() == b"old"
    (left,) = set(tmp_path.iterdir()) - {path}
    gates.write_atomically(path, b"new")
    assert left.exists(), "another machine may be writing it"
    os.utime(left, (1e9, 1e9))
    gates.write_atomically(tmp_path / "dog.png", b"another")
    assert left.exists(), "it is not the dog's"
    gates.write_atomically(path, b"newer")
    assert not left.exists() and path.read_bytes() == b"newer"


# -------------------------------------------------------------------------------------- cost, said before the work


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--side", "8192", "--steps", "100000", "--animation", "a.gif"], "an animation of 100,012 pictures, 8,192 x"),
        (["--animation", "a.mp4"], "the program ffmpeg"),
        (["--start", "."], "is a folder, not a picture"),
        (["--start", "nowhere.png"], "does not exist"),
    ],
)
def test_paint_refuses_before_any_model_is_loaded(arguments, said, tmp_path, monkeypatch, capsys):
    from mmlesson import clip

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(painter.shutil, "which", lambda _: None)
    monkeypatch.setattr(clip, "load_guide", lambda: pytest.fail("a model was loaded"))
    assert cli.main(["paint", "a cat", *arguments]) == 1
    assert said in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_sheet_that_no_memory_holds_is_refused_before_it_is_made(monkeypatch):
    class Huge:
        """Stands in for a picture: only its size is asked for."""

        size = (10**6, 10**6)
        width, height = size

    monkeypatch.setattr(pixels, "load_image", lambda image: image)
    with pytest.raises(gates.AssetError, match="a sheet of 4 pictures, .* GB of memory, .*: choose fewer pictures"):
        pixels.image_grid([Huge() for _ in range(4)])


def test_memory_is_estimated_and_said():
    gates.check_memory("a small thing", 1e3, "do nothing")
    with pytest.raises(
        gates.AssetError, match=r"a thing needs about 1000000.0 GB of memory, .* GB are free: go away\."
    ):
        gates.check_memory("a thing", 1e15, "go away")


@pytest.mark.parametrize(
    "seconds, said", [(0.01, ""), (1, "1,000 steps take about 17 minutes here; stop it."), (60, "17 hours")]
)
def test_long_work_says_once_how_long_it_takes(seconds, said, monkeypatch, capsys):
    now = iter(float(n) * seconds for n in range(2))
    monkeypatch.setattr(commands.time, "monotonic", lambda: next(now) * 3)
    assert list(commands._timed(range(9), 1000, "stop it")) == list(range(9))
    assert said in capsys.readouterr().err


def test_like_a_folder_names_a_command(tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert cli.main(["search", str(tmp_path), "--like", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"`mmlesson search {tmp_path} SENTENCE`" in said and "list_images" not in said


@pytest.mark.parametrize("suffix", ["animation.avi", "film.mp4", "film.gif"])
@pytest.mark.parametrize("wrong", [{"side": 0}, {"side": 10**6}, {"fps": 0}, {"side": True}, {"fps": float("nan")}])
def test_an_animation_that_cannot_be_is_said(suffix, wrong, monkeypatch):
    monkeypatch.setattr(painter.shutil, "which", lambda _: "ffmpeg")
    with pytest.raises((ValueError, gates.AssetError)):
        painter.check_animation(suffix, 10, **wrong)


WRONG = (0, -1, 1.5, True, "3", "٣", float("nan"), float("inf"))
CALLS = {
    "columns": lambda value: pixels.image_grid([Image.new("RGB", (8, 8))], columns=value),
    "size": lambda value: pixels.thumbnail(Image.new("RGB", (8, 8)), value),
    "size of pixels": lambda value: pixels.to_pixels(Image.new("RGB", (8, 8)), value),
    "height": lambda value: pixels.to_pixels(Image.new("RGB", (8, 8)), (8, value)),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("value", WRONG, ids=str)
def test_a_number_of_pixels_that_makes_no_sense_is_said(name, value):
    with pytest.raises(ImageError, match=r"(columns|size) must be a whole number of at least 1, not "):
        CALLS[name](value)


@pytest.mark.parametrize("value", [-1, 1.5, True, "3", float("nan")], ids=str)
def test_a_border_and_a_speed_that_make_no_sense_are_said(value):
    with pytest.raises(ImageError, match="padding must be a whole number of at least 0, not "):
        pixels.image_grid([Image.new("RGB", (8, 8))], padding=value)
    if value != 1.5:
        with pytest.raises(ImageError, match=r"fps, pictures a second, must be a number from 0\.1 to 50, not "):
            pixels.save_gif([Image.new("RGB", (8, 8))], "never.gif", fps=value)
