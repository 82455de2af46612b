"""What the command prints on: terminals, files and pipes of any encoding, closed ones too.

A work of minutes must not fail because its last sentence has a letter that the terminal cannot show.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import errno
import io
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import mmlesson

PACKAGE = Path(mmlesson.__file__).parent
ERRORS = "mmlesson-plain"
# What stands for a sign where an encoding has not got it. Anything else is written as Python writes it: "\u732b".
PLAIN = {
    "“": '"', "”": '"', "‘": "'", "’": "'", "…": "...", "–": "-", "—": "-", "−": "-", "×": "x", "·": "*",
    "→": "->", "←": "<-", "▶": ">", "≥": ">=", "≤": "<=", "✓": "ok", "✗": "x", "²": "^2", "█": "#",
}  # fmt: skip


class _Nothing(io.TextIOWrapper):
    """What stands for a stream that is closed: it throws away what it is given."""

    def __init__(self):
        super().__init__(open(os.devnull, "wb"), "utf-8")


class _StandardError(io.TextIOWrapper):
    """Standard error that never fails: no work of minutes ends because its progress cannot be shown on a full disk."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            _throw_away(self)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            _throw_away(self)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose help and version are printed, or fail: argparse passes over a full disk in silence."""

    def _print_message(self, message: str, file: TextIO | None = None) -> None:
        if message and file is sys.stdout:
            if isinstance(file, _Nothing):  # the help is all that was asked for
                raise OSError(errno.EBADF, "it is closed")
            file.write(message)
        else:
            super()._print_message(message, file)


def prepare() -> None:
    """Make standard output and error print anything: a sign that their encoding lacks is replaced.

    A stream that is closed (`mmlesson … >&-`) becomes one that throws away what it is given, and so does standard
    error on a full disk.
    """
    codecs.register_error(ERRORS, _plainly)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, _Nothing())
        elif name == "stderr" and stream is sys.__stderr__:
            sys.stderr = _StandardError(stream.buffer, stream.encoding, ERRORS, line_buffering=True)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ERRORS)


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    plain = (PLAIN.get(letter) or letter.encode("ascii", "backslashreplace").decode() for letter in letters)
    return "".join(plain), error.end


def is_lost(error: OSError) -> bool:
    """Whether an error says that standard output takes no more: its reader has gone, or its disk is full.

    From then on standard output throws away what it is given, or Python would complain again when it ends.
    """
    broken = isinstance(error, BrokenPipeError)
    if not broken and (
        error.filename is not None or error.errno not in (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EBADF)
    ):
        return False
    _throw_away(sys.stdout)
    return True


def _throw_away(stream: TextIO) -> None:
    """From now on a stream throws away what it is given, and what it still holds."""
    with contextlib.suppress(OSError, ValueError):  # a stand-in of a test has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def warnings_as_sentences() -> Iterator[None]:
    """A context in which the package's own warnings are printed as sentences, without a path and a line of source."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message, category, filename, lineno, file=None, line=None) -> None:
            if issubclass(category, UserWarning) and PACKAGE in Path(filename).resolve().parents:
                print(f"mmlesson: {message}", file=sys.stderr)
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield
