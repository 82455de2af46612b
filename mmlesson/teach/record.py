"""What a learner has tried and solved: one small JSON file, on this machine alone, which `check` writes.

The file lies in the data folder of the operating system's user (platformdirs), or in the folder that MMLESSON_PROGRESS
names; MMLESSON_PROGRESS=off keeps nothing. Its name is a sum of the user's name and of the folder of the notebooks. So
two learners on one account, each with a folder of their own, have a file each, and so have two accounts.

Nothing here may cost a learner an answer: what goes wrong with the file is a sentence, and `check` works without it. A
file that cannot be read is put aside under another name and never written over.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmlesson import gates
from mmlesson.words import shown

ENVIRONMENT = "MMLESSON_PROGRESS"  # a folder, or "off"
STATES = ("right", "not yet")  # an exercise that is not in the file is open
LARGEST = 1_000_000  # bytes of a file that is believed
WAIT = 5.0  # seconds for another notebook that writes
_START = Path.cwd()  # a kernel starts in the folder of its notebook; a cell may leave it later


@dataclass(frozen=True)
class Entry:
    """What is known of one exercise."""

    state: str  # "right" or "not yet"; once right, it stays right
    tries: int  # answers that were checked
    last: str  # when the last one was, "2026-11-27 13:05"


def notebooks_folder() -> Path:
    """The folder of the notebook that runs here: as Jupyter names it, else where this process started."""
    named = os.environ.get("JPY_SESSION_NAME", "")  # the whole path of the notebook, where a Jupyter server sets it
    with contextlib.suppress(OSError, ValueError):
        if os.path.isabs(named) and Path(named).is_file():
            return Path(named).resolve().parent
    return _START.resolve()


def path_of(folder: Path | None = None) -> Path | None:
    """The file of this user for a folder of notebooks (None: this one); None where MMLESSON_PROGRESS is "off".

    Raises AssetError where there is no place for it: the user has no home folder.
    """
    from platformdirs import user_data_path

    asked = os.environ.get(ENVIRONMENT, "").strip()
    if asked.lower() == "off":
        return None
    try:
        place = (
            Path(asked).expanduser().absolute() if asked else user_data_path("mmlesson", appauthor=False) / "progress"
        )
    except RuntimeError as error:
        raise gates.AssetError(f"There is no folder for your progress ({error}): {_WAY_OUT}.") from error
    key = f"{_user()}\0{folder or notebooks_folder()}"
    return place / f"{hashlib.sha256(key.encode(errors='surrogateescape')).hexdigest()[:20]}.json"


_WAY_OUT = f"set the environment variable {ENVIRONMENT} to a folder that you may write to"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name, as in some containers
        return str(os.getuid()) if hasattr(os, "getuid") else ""


# --------------------------------------------------------------------------------------------- reading


def read(path: Path | None = None) -> dict[str, Entry]:
    """What is noted: number of an exercise → Entry; empty where nothing is noted yet, or nothing is kept.

    Raises AssetError where the file cannot be read, or is none of ours.
    """
    path = path_of() if path is None else path
    if path is None:
        return {}
    try:
        with gates.open_file(path) as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise gates.AssetError(
            f"Your progress, {shown(path)}, cannot be read ({gates.reason(error)}): {_WAY_OUT}."
        ) from error
    entries = _parsed(content)
    if entries is None:
        raise gates.AssetError(
            f"Your progress, {shown(path)}, is damaged. The next answer that you check starts a new file; "
            "the damaged one is kept beside it."
        )
    return entries


def _parsed(content: bytes) -> dict[str, Entry] | None:
    """The entries of a file; None where it is not what `note` writes."""
    if len(content) > LARGEST:
        return None
    try:
        found = json.loads(content)
        entries = {
            number: Entry(each["state"], each["tries"], each["last"]) for number, each in found["exercises"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return entries if all(_is_sound(number, entry) for number, entry in entries.items()) else None


def _is_sound(number: str, entry: Entry) -> bool:
    return (
        bool(re.fullmatch(r"\d{1,3}\.\d{1,3}", number))
        and entry.state in STATES
        and type(entry.tries) is int
        and 0 < entry.tries < 10**9
        and isinstance(entry.last, str)
        and bool(re.fullmatch(r"[-\d: ]{1,20}", entry.last))
    )


# --------------------------------------------------------------------------------------------- writing


def note(number: str, right: bool) -> None:
    """Note that an answer to an exercise was right, or not yet. Where that fails it warns once, and goes on."""
    try:
        path = path_of()
        if path is not None:
            with _alone(path):
                _write(path, _with(_before(path), number, right))
    except (gates.AssetError, OSError, RuntimeError) as error:
        _say(str(error) if isinstance(error, gates.AssetError) else f"Your progress is not kept ({error}): {_WAY_OUT}.")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One notebook at a time. It waits a little, and not for ever: a learner is waiting too."""
    with gates.lock(path, timeout=WAIT, what="writing your progress"):
        yield


def _before(path: Path) -> dict[str, Entry]:
    """What the file holds. A damaged one is put aside, so that nothing of it is lost."""
    try:
        with gates.open_file(path) as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        return {}
    entries = _parsed(content)
    if entries is not None:
        return entries
    aside = next(
        each for each in (path.with_suffix(f".damaged-{n}.json") for n in range(1, 10_000)) if not each.exists()
    )
    os.replace(path, aside)
    _say(f"Your progress, {shown(path)}, was damaged: a new file begins, and the damaged one is {shown(aside.name)}.")
    return {}


def _with(entries: dict[str, Entry], number: str, right: bool) -> dict[str, Entry]:
    before = entries.get(number)
    was_right = before is not None and before.state == "right"
    now = time.strftime("%Y-%m-%d %H:%M")
    entry = Entry("right" if right or was_right else "not yet", (before.tries if before else 0) + 1, now)
    return {**entries, number: entry}


def _write(path: Path, entries: Mapping[str, Entry]) -> None:
    exercises = {number: {"state": e.state, "tries": e.tries, "last": e.last} for number, e in sorted(entries.items())}
    content = {"notebooks": str(notebooks_folder()), "exercises": exercises}
    gates.write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


@functools.cache  # each sentence once: a read-only file would say it at every answer
def _say(sentence: str) -> None:
    from mmlesson import runtime

    runtime.warn(sentence)
