"""Where the course's files live, and whether they are whole.

`data/` holds what the course brings (weights and their configs), each file listed in `data/manifest.json`
with its sha256; the cache holds what the course makes (sprites, indexes) and can be deleted at any time.
Nothing here asks the network for anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from mmlesson.gates import AssetError, lock, open_file, reason, write_atomically

PACKAGE = Path(__file__).resolve().parent.parent
MANIFEST = "manifest.json"
LICENCE = "CC BY-SA 4.0"


# ---------------------------------------------------------------------------------------------- places


def expanded(path: str) -> Path:
    """A path in which "~" stands for the home folder. Raises AssetError for none, and where there is no such home."""
    if not path:
        raise AssetError("There is no path: write the path of a folder; the current one is '.'.")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise AssetError(f"{path} begins with a home folder that does not exist: write the whole path.") from error


def in_checkout() -> bool:
    """True where mmlesson runs from its repository (an editable installation), False from a wheel."""
    root = PACKAGE.parent
    return not (PACKAGE / "data").is_dir() and any((root / sign).exists() for sign in ("pyproject.toml", ".git"))


def data_dir() -> Path:
    """The folder of the course's data: `mmlesson/data` in an installed wheel, `data` in a checkout.

    The environment variable MMLESSON_DATA puts another folder in its place (the tests do).
    Raises AssetError where there is no such folder.
    """
    other = os.environ.get("MMLESSON_DATA")
    if other:
        folder = expanded(other)
        if not folder.is_dir():
            raise AssetError(f"MMLESSON_DATA names {folder}, which is not a folder: unset it, or name one that exists.")
        return folder
    return _own_folder("data")


def notebooks_dir() -> Path:
    """The folder of the lessons: `mmlesson/notebooks` in an installed wheel, `notebooks` in a checkout.

    Raises AssetError where there is no such folder.
    """
    return _own_folder("notebooks")


def _own_folder(name: str) -> Path:
    installed, checkout = PACKAGE / name, PACKAGE.parent / name
    if installed.is_dir():
        return installed
    if in_checkout():
        if checkout.is_dir():
            return checkout
        raise AssetError(f"The folder {checkout} is missing: get it back with `git checkout -- {name}`.")
    raise AssetError(f"The installed mmlesson has no folder {name}: reinstall it with `{_reinstall()}`.")


def _reinstall() -> str:
    return f'"{sys.executable}" -m pip install --force-reinstall --no-deps mmlesson'


_writable: set[Path] = set()  # folders that this process has written to already


def cache_dir() -> Path:
    """The folder for what the course makes and can make again; created when first asked for.

    MMLESSON_CACHE where it is set, else the user's cache folder of the operating system.
    Raises AssetError where nothing can be written there.
    """
    from platformdirs import user_cache_path

    asked = os.environ.get("MMLESSON_CACHE")
    try:
        folder = expanded(asked).absolute() if asked else user_cache_path("mmlesson", appauthor=False)
    except RuntimeError as error:  # a user without a home folder
        raise AssetError(
            f"There is no cache folder ({error}). "
            "Set the environment variable MMLESSON_CACHE to a folder that you may write to, with 1 GB free."
        ) from error
    if folder in _writable and folder.is_dir():
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}-{secrets.token_hex(4)}"
        probe.write_bytes(b"mmlesson")
        probe.unlink()
    except OSError as error:
        whose = "MMLESSON_CACHE names" if asked else "the cache is"
        raise AssetError(
            f"Nothing can be written to the cache folder ({whose} {folder}: {reason(error)}). "
            "Set the environment variable MMLESSON_CACHE to a folder that you may write to, with 1 GB free."
        ) from error
    _writable.add(folder)
    return folder


# ------------------------------------------------------------------------------------------- manifest


def manifest(data: Path | None = None) -> dict:
    """The list of the course's data files: {"files": {"models/…": {"sha256": …, "bytes": …, "licence": …}}}.

    Raises AssetError where the manifest is missing or is not such a list.
    """
    path = (data or data_dir()) / MANIFEST
    remedy = how_to_restore(MANIFEST, data)
    try:
        with open_file(path) as file:
            listed = json.loads(file.read().decode("utf-8"))
    except FileNotFoundError:
        raise AssetError(f"{path}, the list of the course's data files, is missing: {remedy}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise AssetError(f"{path}, the list of the course's data files, cannot be read ({error}): {remedy}.") from error
    files = listed.get("files") if isinstance(listed, dict) else None
    if not isinstance(files, dict) or not all(
        isinstance(entry, dict) and isinstance(entry.get("sha256"), str) and isinstance(entry.get("bytes"), int)
        for entry in files.values()
    ):
        raise AssetError(f"{path} is not a list of files with their sha256 and bytes: {remedy}.")
    return listed


def how_to_restore(relative: str, data: Path | None = None) -> str:
    """What a learner does about a missing or damaged file of data/, as an imperative without a full stop."""
    if data is not None or os.environ.get("MMLESSON_DATA"):
        folder = data or os.environ["MMLESSON_DATA"]
        return f"put it back into {folder}, or unset MMLESSON_DATA to use the course's own data"
    if in_checkout():
        return f"get it back with `git checkout -- data/{relative}` in {PACKAGE.parent}"
    return f"reinstall the course with `{_reinstall()}`"


def sha256(path: str | Path) -> str:
    """The sha256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_verified: dict[Path, tuple[int, int, str]] = {}  # path -> (mtime in ns, bytes, sha256) when it was last read whole


def check_file(relative: str, data: Path | None = None) -> Path:
    """The path of a file of data/, after its sha256 was found equal to the manifest's.

    `relative` is as in the manifest, with forward slashes. A file is read once per process, and again
    when its time or size changed. Raises AssetError where it is unknown, missing or damaged.
    """
    folder = data or data_dir()
    relative = PurePosixPath(relative).as_posix()
    entry = manifest(data)["files"].get(relative)
    if entry is None:
        raise AssetError(f"{relative} is not one of the files that {folder / MANIFEST} lists.")

    path = folder / relative
    remedy = how_to_restore(relative, data)
    try:
        stat = path.stat()
        if stat.st_size != entry["bytes"]:
            raise AssetError(f"{path} is damaged ({stat.st_size:,} bytes instead of {entry['bytes']:,}): {remedy}.")
        known = _verified.get(path)
        if known is None or known[:2] != (stat.st_mtime_ns, stat.st_size):
            known = (stat.st_mtime_ns, stat.st_size, sha256(path))
            _verified[path] = known
    except FileNotFoundError:
        raise AssetError(f"{path} is missing: {remedy}.") from None
    except OSError as error:
        raise AssetError(f"{path} cannot be read ({reason(error)}): {remedy}.") from error
    if known[2] != entry["sha256"]:
        raise AssetError(f"{path} is damaged (its sha256 is not the manifest's): {remedy}.")
    return path


def model_dir(name: str, data: Path | None = None) -> Path:
    """The folder of a pocket model, such as "pocket-clip", after each of its files was checked.

    Raises AssetError where the manifest knows no such model, or a file of it is missing or damaged.
    """
    files = manifest(data)["files"]
    mine = [relative for relative in files if relative.startswith(f"models/{name}/")]
    if not mine:
        models = sorted({relative.split("/")[1] for relative in files if relative.startswith("models/")})
        raise AssetError(f"There is no pocket model {name!r} here; there is {', '.join(models) or 'none at all'}.")
    for relative in mine:
        check_file(relative, data)
    return (data or data_dir()) / "models" / name


def update_manifest(paths: Iterable[str | Path], licence: str | None = None, data: Path | None = None) -> dict:
    """Write the sha256 and size of files into the manifest, after training; returns the new manifest.

    A path is a file or a folder under data/ (relative ones count from data/). A folder stands for all it
    holds but model cards (.md), which people may still edit; entries of files that are gone go too.
    `licence` None keeps that of an old entry, and is "CC BY-SA 4.0" for a new one. Entries are sorted.
    Raises AssetError for a path outside data/.
    """
    folder = (data or data_dir()).resolve()
    with lock(folder / MANIFEST):
        files = dict(manifest(data)["files"]) if (folder / MANIFEST).exists() else {}
        for given in paths:
            path = (folder / given).resolve()
            if folder not in path.parents:
                raise AssetError(f"{given} is not in {folder}: only files of data/ are listed in its manifest.")
            relative = path.relative_to(folder).as_posix()
            old = {name: files.pop(name) for name in list(files) if name == relative or name.startswith(relative + "/")}
            found = sorted(path.rglob("*")) if path.is_dir() else [path]
            for file in found:
                if not file.is_file() or file.name.startswith(".") or file.suffix in (".lock", ".md"):
                    continue
                name = file.relative_to(folder).as_posix()
                kept = licence or old.get(name, {}).get("licence") or LICENCE
                files[name] = {"sha256": sha256(file), "bytes": file.stat().st_size, "licence": kept}
        new = {"files": dict(sorted(files.items()))}
        write_atomically(folder / MANIFEST, (json.dumps(new, indent=2, ensure_ascii=False) + "\n").encode())
    return new


# -------------------------------------------------------------------------------------------- offline


def is_offline() -> bool:
    """True where the network is switched off (HF_HUB_OFFLINE) or no network interface but loopback is up.

    It sends nothing, so False is no promise that anything can be reached.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in ("1", "ON", "YES", "TRUE"):
        return True
    import psutil

    try:
        interfaces = psutil.net_if_stats()
        addresses = psutil.net_if_addrs()
    except OSError:
        return False
    for name, state in interfaces.items():
        loopback = all(
            entry.address.startswith(("127.", "::1", "00:00:00:00:00:00")) for entry in addresses.get(name, [])
        )
        if state.isup and not loopback:
            return False
    return True


def offline_error(what: str, ways: Iterable[str]) -> AssetError:
    """The error for a file that is neither on this machine nor to be had: which one, and the ways out.

    `what` names the file, `ways` are what a learner can do, each an imperative without a full stop.
    Returned, not raised: `raise offline_error(…) from error`.
    """
    return AssetError(f"{what} is not on this machine and cannot be fetched without a network: {', or '.join(ways)}.")
