"""The gates: what comes from outside the program, or leaves it, passes one function of its kind here.

A regular file is opened without waiting (`open_file`). A file is written whole or not at all (`write_atomically`), and
by one process at a time (`lock`). Two gates stand elsewhere, because they need more than this file does:
`pixels.load_image` opens a picture; `models.folders` and `models.clips` load weights.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


class AssetError(RuntimeError):
    """A file of the course is missing, damaged or cannot be written; the message says what to do."""


def reason(error: OSError) -> str:
    """What the operating system says of an error, in lower case: "permission denied"."""
    return (error.strerror or str(error)).lower()


# -------------------------------------------------------------------------------------------- reading


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


# -------------------------------------------------------------------------------------------- writing


def write_atomically(path: str | Path, data: bytes | Callable[[Path], None]) -> Path:
    """Write a file so that a reader finds the whole old one or the whole new one, never a part; returns its path.

    `data` is the bytes, or a function that writes the file to the path it is given (in the same folder, with
    the same suffix). Folders are made. Raises AssetError where the disk is full or the folder is not
    writable; the old file is then as it was, and nothing is left beside it.
    """
    path = Path(path)
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
        sentence = _why_not_written(path, error)
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


def _why_not_written(path: Path, error: BaseException) -> str | None:
    number = getattr(error, "errno", None)
    # safetensors and torch raise their own kinds, with the system's words inside
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
        return (
            f"The disk is full: {path} could not be written, and what was there before is unchanged. "
            "Free some space and try again."
        )
    if isinstance(error, OSError) and number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return f"{path} cannot be written ({reason(error)}): make its folder writable, or choose another one."
    return None


@contextlib.contextmanager
def lock(path: str | Path, timeout: float = 600.0, what: str | None = None) -> Iterator[None]:
    """A context that one process at a time enters for `path`; it locks the file `<path>.lock` beside it.

    `what` names the work for people ("rendering the sprites"). Raises AssetError after `timeout` seconds of
    waiting, or where the lock file cannot be made.
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
