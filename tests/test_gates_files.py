"""gates.py: files that are written whole or not at all, locks between processes."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from mmlesson import gates
from mmlesson.gates import AssetError

# -------------------------------------------------------------------------------------------- writing


def test_write_atomically_bytes_and_function(tmp_path):
    path = tmp_path / "new" / "file.json"
    assert gates.write_atomically(path, b"one") == path
    assert path.read_bytes() == b"one"
    suffixes = []

    def write(temporary: Path) -> None:
        suffixes.append(temporary.suffix)
        assert temporary.parent == path.parent
        assert path.read_bytes() == b"one"  # a reader still finds the old one
        temporary.write_bytes(b"two")

    gates.write_atomically(path, write)
    assert path.read_bytes() == b"two"
    assert suffixes == [".json"]  # so that PIL knows the format
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]


@pytest.mark.parametrize(
    "error, shown, complaint",
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            AssetError,
            "The disk is full: .* unchanged. Free some space",
        ),
        (
            RuntimeError("I/O error: No space left on device (os error 28)"),
            AssetError,
            "The disk is full",
        ),  # safetensors
        (PermissionError(errno.EACCES, "Permission denied"), AssetError, "cannot be written .permission denied.: make"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (ZeroDivisionError("a bug"), ZeroDivisionError, "a bug"),
    ],
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error, shown, complaint):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def write(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise error

    with pytest.raises(shown, match=complaint):
        gates.write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is Linux's")
def test_a_disk_that_is_really_full(tmp_path):
    def write(temporary: Path) -> None:
        temporary.symlink_to("/dev/full")
        with open(temporary, "wb") as file:
            file.write(b"x" * 100_000)

    with pytest.raises(AssetError, match="The disk is full"):
        gates.write_atomically(tmp_path / "file.bin", write)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AssetError, match="cannot be written"):
        gates.write_atomically(tmp_path / "file" / "below.bin", b"")


# ----------------------------------------------------------------------------------------------- lock

COUNT = """
import sys
from pathlib import Path
from mmlesson import gates

counter = Path(sys.argv[1])
for _ in range(20):
    with gates.lock(counter):
        gates.write_atomically(counter, str(int(counter.read_text()) + 1).encode())
"""

HOLD = """
import sys
from mmlesson import gates

with gates.lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_processes_enter_a_lock_one_at_a_time(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    running = [subprocess.Popen([sys.executable, "-c", COUNT, str(counter)]) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert counter.read_text() == "60"  # without the lock, counts are lost


def test_a_lock_that_another_process_holds_says_what_it_waits_for(tmp_path):
    path = tmp_path / "sprites.npy"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline().strip() == b"held"
        with pytest.raises(
            AssetError, match=r"Another process has been drawing sprites for more than 0.2 seconds.*delete .*npy\.lock"
        ):
            with gates.lock(path, timeout=0.2, what="drawing sprites"):
                pytest.fail("entered a lock that another process holds")
    finally:
        holder.communicate(b"\n")
    with gates.lock(path, timeout=5):  # free again once the holder has ended
        pass


def test_a_lock_is_freed_by_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), gates.lock(tmp_path / "a"):
        1 / 0  # noqa: B018 - asking is what raises
    with gates.lock(tmp_path / "a", timeout=0.2):
        pass


def test_a_lock_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AssetError, match="cannot be made"), gates.lock(tmp_path / "file" / "a"):
        pass
