"""The gates: what comes from outside the program, or leaves it, passes one function of its kind here.

A number is checked by `whole_number` or `real_number`. The place of a result is checked before the work begins
(`output_path`, `output_folder`), and so is the memory that the work takes (`check_memory`). A regular file is opened
without waiting (`open_file`). A file is written whole or not at all (`write_atomically`), and by one process at a time
(`lock`); the result of long work is not lost where its place cannot take it (`write_result`). A cache file is believed
where its sum is right (`read_sealed`, `is_whole`). A place that may not be entered is a sentence (`of_a_place`). Three
gates stand elsewhere, because they need more than this file does: `pixels.load_image` opens a picture and
`pixels.save_image` writes one; `models.folders` and `models.clips` load weights; `words.check` reads a text.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import numbers
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from mmlesson.words import shown


class AssetError(RuntimeError):
    """A file of the course is missing, damaged or cannot be written; the message says what to do."""


class KeptElsewhereError(AssetError):
    """A result could not be written to its place; the message names the file that holds it instead."""


def reason(error: OSError) -> str:
    """What the operating system says of an error, in lower case: "permission denied"."""
    return (error.strerror or str(error)).lower()


# What a person can change about a file; any other error of the system may be a bug.
OF_A_PLACE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR})


def of_a_place(error: BaseException) -> str | None:
    """The sentence for an error about a place that this user may not enter, or that is none; None for another one."""
    if not isinstance(error, OSError) or error.errno not in OF_A_PLACE or error.filename is None:
        return None
    name = shown(os.fsdecode(error.filename))
    if len(name) > 100:
        name = f"{name[:60]}…"
    return f"{name} cannot be read or written ({reason(error)}): change its permissions, or name another place."


# -------------------------------------------------------------------------------------------- reading


def input_path(path: str | Path) -> Path:
    """The path of a file or a folder that is to be read; whoever reads it says whether something is there.

    Raises ValueError for the empty text, which Path would read as the current folder.
    """
    if not str(path) or "\0" in str(path):
        raise ValueError(f"{str(path)!r} is no name of a file or a folder; the current folder is '.'.")
    return Path(path)


class NotAFileError(OSError):
    """A path leads to a pipe, a socket or a device: reading it could wait for ever, or never end."""


def open_file(path: str | os.PathLike) -> BinaryIO:
    """Opens a regular file for reading, in binary; a link to one is followed. It never waits.

    Raises NotAFileError for a pipe, a socket or a device, IsADirectoryError for a folder, and the OSError of `open`.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            kinds = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"))
            kind = next((name for is_kind, name in kinds if is_kind(mode)), "a device")
            raise NotAFileError(errno.EINVAL, f"it is {kind}, not a file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


# -------------------------------------------------------------------------------------------- numbers


def whole_number(name: str, value: object, least: int | None = None, most: int | None = None) -> int:
    """`value` as an int, if it is a whole number from `least` to `most` (None: no limit).

    Integers of Python and numpy pass. Raises ValueError, with a sentence that begins with `name`, for anything else:
    also for True and False, for texts, and for 3.0.
    """
    kind = f"a whole number{_range(None, least, most)}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} must be {kind}, not {value!r}.")
    number = int(value)
    if (least is not None and number < least) or (most is not None and number > most):
        raise ValueError(f"{name} must be {kind}, not {number}.")
    return number


SMALLEST = 1.2e-38  # about the smallest number of float32 that has all its digits


def real_number(
    name: str, value: object, above: float | None = None, least: float | None = None, most: float | None = None
) -> float:
    """`value` as a float, if it is a finite number in the range: greater than `above`, from `least` to `most`.

    None is no limit. Numbers of Python and numpy pass, whole ones too. Raises ValueError, with a sentence that begins
    with `name`, for anything else: also for NaN, for infinity, for True and False, and for texts.
    """
    kind = f"a number{_range(above, least, most)}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"{name} must be {kind}, not {value!r}.")
    try:
        number = float(value)
    except OverflowError:  # a whole number that is too large for a float
        number = math.inf
    outside = (
        (above is not None and number <= above)
        or (least is not None and number < least)
        or (most is not None and number > most)
    )
    if outside or not math.isfinite(number):
        raise ValueError(f"{name} must be {kind}, not {number}.")
    if above == 0 and number < SMALLEST:  # networks divide by it, in float32: the result would be no number
        raise ValueError(f"{name} must be {kind}, and {number} is too small to compute with.")
    return number


def _range(above: float | None, least: float | None, most: float | None) -> str:
    """The limits of a number in words, with a space in front; "" where there are none."""
    if above is not None:
        return f" above {above:g}" + ("" if most is None else f" and at most {most:g}")
    if least is not None:
        return f" of at least {least}" if most is None else f" from {least} to {most}"
    return "" if most is None else f" of at most {most}"


# ------------------------------------------------------------------------------- the place of a result

LONGEST_NAME = 200  # bytes of a file's name: systems allow 255, and a temporary name beside it is longer
LONGEST_PATH = 3900  # bytes of a whole path: Linux allows 4,095, others less


def output_path(path: str | Path, endings: Sequence[str] = ()) -> Path:
    """The path of a file that is to be written, checked before the work begins; nothing is written yet.

    `endings` are the allowed endings, such as ".png", in small letters; none: any. Folders that do not exist are made
    later. Raises ValueError where the path names no file of such a kind, AssetError where its folder is not writable.
    """
    text = str(path)
    path = Path(path)
    name = shown(path)
    if not text or "\0" in text or not path.name:
        raise ValueError(f"{text!r} is no name of a file.")
    _check_length(path)
    if os.path.isdir(path):  # Path.is_dir raises where a folder may not be entered, and `_check_writable` says so
        example = path / f"result{endings[0] if endings else ''}"
        raise ValueError(f"{name} is a folder: name a file, such as {shown(example)}.")
    if endings and path.suffix.lower() not in endings:
        raise ValueError(f"{name} has to end in {' or '.join(endings)}.")
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{name} is a device and not a file: name a file.")
    _check_writable(path.parent)
    if os.path.exists(path) and not os.access(path, os.W_OK):
        raise AssetError(f"{name} is protected from writing: remove it, or choose another name.")
    return path


def output_folder(path: str | Path) -> Path:
    """The path of a folder that results go to, checked before the work begins; it need not exist yet.

    Raises ValueError where the path names a file, AssetError where the folder is not writable or cannot be made.
    """
    text = str(path)
    path = Path(path)
    if not text or "\0" in text:
        raise ValueError(f"{text!r} is no name of a folder.")
    _check_length(path)
    if os.path.exists(path) and not os.path.isdir(path):
        raise ValueError(f"{shown(path)} is a file: name a folder.")
    _check_writable(path)
    return path


def _check_length(path: Path) -> None:
    """Raise ValueError for a path that no system takes, or one with a name that leaves no room for a temporary one."""
    for part in path.parts:
        if len(os.fsencode(part)) > (LONGEST_NAME if part == path.name else 255):
            start = shown(part[:40] + "…")
            raise ValueError(
                f"{start} is too long for the name of a file or a folder: use at most {LONGEST_NAME} bytes."
            )
    length = len(os.fsencode(path.absolute()))
    if length > LONGEST_PATH:
        raise ValueError(f"the path {shown(str(path)[:40] + '…')} has {length:,} bytes: use at most {LONGEST_PATH:,}.")


def _check_writable(folder: Path) -> None:
    """Raise AssetError unless a file can be made in `folder`, or in the nearest folder above it that exists."""
    there = folder.absolute()
    try:
        while not there.exists():
            there = there.parent
        with tempfile.TemporaryFile(dir=there):  # asking for permissions is not enough: a disk may be read-only
            pass
    except OSError as error:
        raise AssetError(
            f"Nothing can be written to {shown(folder)} ({reason(error)}): make the folder writable, or choose another "
            "one."
        ) from error


def check_memory(what: str, needed: float, way_out: str) -> None:
    """Raises AssetError where work needs more memory than is free now; `needed` is an estimate, in bytes.

    `what` names the work ("an animation of 92 pictures, 8192 x 8192 pixels each,"), `way_out` what to do instead.
    """
    import psutil

    free = psutil.virtual_memory().available
    if needed > free:
        raise AssetError(
            f"{what} needs about {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free: {way_out}."
        )


# -------------------------------------------------------------------------------------------- writing


def write_atomically(path: str | Path, data: bytes | Callable[[Path], None]) -> Path:
    """Write a file so that a reader finds the whole old one or the whole new one, never a part; returns its path.

    `data` is the bytes, or a function that writes the file to the path it is given (in the same folder, with
    the same suffix). Folders are made. Raises AssetError where the disk is full or the folder is not
    writable; the old file is then as it was, and nothing is left beside it.
    """
    path = Path(path)
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(data):
            data(temporary)
        else:
            temporary.write_bytes(data)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # before the name changes: a power cut must not leave an empty file
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        sentence = _why_not_written(path, temporary, error)
        if sentence:
            raise AssetError(sentence) from error
        raise
    if os.name == "posix":
        with contextlib.suppress(OSError):  # some file systems have no fsync for folders
            descriptor = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    return path


def _why_not_written(path: Path, temporary: Path, error: BaseException) -> str | None:
    name = shown(path)
    number = getattr(error, "errno", None)
    # safetensors and torch raise their own kinds, with the system's words inside
    full = ("No space left on device", "Disk quota exceeded")
    if number in (errno.ENOSPC, errno.EDQUOT) or any(words in str(error) for words in full):
        return (
            f"The disk is full: {name} could not be written, and what was there before is unchanged. "
            "Free some space and try again."
        )
    if number == errno.EFBIG or "File too large" in str(error):
        return (
            f"{name} could not be written: it would be larger than a file may be here. What was there before is "
            "unchanged. Choose another place, or raise the limit (`ulimit -f`)."
        )
    if isinstance(error, OSError) and number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return f"{name} cannot be written ({reason(error)}): make its folder writable, or choose another one."
    ours = {str(temporary), str(path), str(path.parent), "None"}  # an error of another file is not about this place
    if isinstance(error, OSError) and number is not None and str(error.filename) in ours:
        return f"{name} could not be written ({reason(error)}): choose another place, and try again."
    return None


def _remove_leftovers(path: Path) -> None:
    """Remove what a killed process left of `path`: files of `write_atomically` that no living process writes."""
    pattern = re.compile(rf"\.{re.escape(path.stem)}-([0-9]+)-[0-9a-f]{{8}}{re.escape(path.suffix)}")
    with contextlib.suppress(OSError):
        for entry in os.scandir(path.parent):
            own = pattern.fullmatch(entry.name)
            # an hour: another machine may write here, whose processes this one cannot see
            if own and time.time() - entry.stat().st_mtime > 3600 and not _is_alive(int(own[1])):
                os.unlink(entry.path)


def _is_alive(process: int) -> bool:
    import psutil

    return psutil.pid_exists(process)


def write_result(path: str | Path, data: bytes | Callable[[Path], None]) -> Path:
    """As `write_atomically`, for the result of long work: it is not lost where `path` cannot take it.

    Then it goes to a fallback file, in the first of these folders that takes it: the current one, that of temporary
    files, the user's own. Raises AssetError whose sentence says why, and names the fallback file.
    """
    path = Path(path)
    try:
        return write_atomically(path, data)
    except AssetError as error:
        said = str(error)
    for folder in (Path.cwd, lambda: Path(tempfile.gettempdir()), Path.home):
        try:
            kept = folder() / f"{path.stem[:40]}-{secrets.token_hex(3)}{path.suffix}"
            write_atomically(kept, data)
        except (AssetError, OSError, RuntimeError):  # there is no current folder, or no home
            continue
        raise KeptElsewhereError(f"{said} The result is in {shown(kept)}.")
    raise AssetError(f"{said} No other folder took it either.")


def sealed(data: bytes) -> bytes:
    """The content of a cache file with its sha256 behind it, for `write_atomically`; `read_sealed` checks it."""
    return data + hashlib.sha256(data).digest()


def read_sealed(path: str | Path) -> bytes | None:
    """What was `sealed` in a cache file; None where it is missing, damaged or no file, so that it has to be made again.

    Raises AssetError where something that is no file stands in its place, which a new file cannot replace.
    """
    try:
        with open_file(path) as file:
            content = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AssetError(f"{path} cannot be read ({reason(error)}): delete it, it is only a cache.") from error
    data = content[:-32]
    return data if hashlib.sha256(data).digest() == content[-32:] else None


def write_sum(path: str | Path) -> None:
    """Write the sha256 of a cache file into a file beside it: for one that is too large to be `sealed` in memory."""
    write_atomically(_beside(path), _sum_of(path).encode())


def is_whole(path: str | Path) -> bool:
    """Whether a cache file is as it was when `write_sum` was called; False where either file is missing.

    Reads all of it, about a second for each GB.
    """
    try:
        with open_file(_beside(path)) as file:
            return file.read(100) == _sum_of(path).encode()
    except OSError:
        return False


def _beside(path: str | Path) -> Path:
    return Path(f"{path}.sha256")


def _sum_of(path: str | Path) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def append(path: str | Path, data: bytes) -> None:
    """Add bytes to the end of a file. Raises AssetError where they cannot be written; a part of them may then be there.

    For logs, which would be too long to write whole each time: their readers leave out half a line at the end.
    """
    try:
        with open(path, "ab") as file:
            file.write(data)
    except OSError as error:
        sentence = _why_not_written(Path(path), Path(path), error)
        if sentence is None:
            sentence = f"{path} cannot be written ({reason(error)}): choose another folder."
        raise AssetError(sentence) from error


@contextlib.contextmanager
def lock(path: str | Path, timeout: float = 600.0, what: str | None = None) -> Iterator[None]:
    """A context that one process at a time enters for `path`; it locks the file `<path>.lock` beside it.

    `what` names the work for people ("rendering the sprites"). Raises AssetError after `timeout` seconds of
    waiting (0: at once), or where the lock file cannot be made.
    """
    import filelock

    path = Path(path)
    file = path.with_name(path.name + ".lock")
    what = what or f"writing {path.name}"
    guard = filelock.FileLock(file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        guard.acquire(timeout=timeout)
    except filelock.Timeout:
        if timeout == 0:
            raise AssetError(
                f"Another process is {what} at this moment. Wait for it, or choose another folder."
            ) from None
        raise AssetError(
            f"Another process has been {what} for more than {timeout:g} seconds. "
            f"Wait for it and try again; if none is running any more, delete {file}."
        ) from None
    except OSError as error:
        raise AssetError(
            f"{file} cannot be made ({reason(error)}): make its folder writable, or choose another one."
        ) from error
    try:
        yield
    finally:
        guard.release()
