"""What the command prints on: terminals, files and pipes of any encoding, closed ones too.

A work of minutes must not fail because its last sentence has a letter that the terminal cannot show.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import mmlesson

PACKAGE = Path(mmlesson.__file__).parent
ERRORS = "mmlesson-plain"
# What stands for a sign where an encoding has not got it. Anything else is written as Python writes it: "\u732b".
PLAIN = {
    "“": '"', "”": '"', "‘": "'", "’": "'", "…": "...", "–": "-", "—": "-", "−": "-", "×": "x", "·": "*",
    "→": "->", "←": "<-", "▶": ">", "≥": ">=", "≤": "<=", "✓": "ok", "✗": "x", "²": "^2", "█": "#",
}  # fmt: skip


def prepare() -> None:
    """Make standard output and error print anything: a sign that their encoding lacks is replaced.

    A stream that is closed (`mmlesson … >&-`) becomes one that throws away what it is given.
    """
    codecs.register_error(ERRORS, _plainly)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
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
    if not broken and (error.filename is not None or error.errno not in (errno.ENOSPC, errno.EIO, errno.EFBIG)):
        return False
    with contextlib.suppress(OSError, ValueError):  # a stand-in of a test has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


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
