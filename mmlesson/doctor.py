"""`mmlesson doctor`: it checks whether the lessons run here, says what is wrong, and the command that fixes it.

Every check stands alone. Packages are imported in child processes, see `doctor_tries.py`; the rest is read in this one.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from mmlesson import gates
from mmlesson.doctor_tries import HEAVY, LIGHT, TRIED, ask_children
from mmlesson.models import assets, checkpoints, reading

NEEDS_PYTHON = (3, 11)
NEEDS_MEMORY = 3 * 10**9  # bytes that a lesson takes at its peak
NEEDS_DISK = 10**9  # bytes for sprites, indexes and checkpoints
LEAST_DISK = 2 * 10**8  # bytes for the sprites alone, without which no lesson starts
# what the lessons load
MODELS = ("pocket-clip", "photo-clip", "pocket-vqgan", "pocket-prior", "pocket-guide", "judge-clip", "pocket-dalle")


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str  # what was checked
    status: str  # "ok", "warning" (the lessons run, but something is wrong) or "fault" (a lesson would fail)
    detail: str  # one sentence for people
    remedy: str  # the command that fixes it; empty where nothing is wrong


# ---------------------------------------------------------------------------------------- findings


def _constraints() -> Path | None:
    """The file of pins: in a checkout its own, in an installed wheel the copy inside, else None."""
    for path in (assets.PACKAGE / "constraints.txt", assets.PACKAGE.parent / "constraints.txt"):
        if path.is_file() and (path.parent == assets.PACKAGE or assets.in_checkout()):
            return path
    return None


def _install(*packages: str, force: bool = False) -> str:
    """The command that installs packages into this very Python, at the pinned versions."""
    words = [f'"{sys.executable}" -m pip install']
    if force:
        words.append("--force-reinstall")
    pins = _constraints()
    if pins:
        words.append(f'-c "{pins}"')
    return " ".join([*words, *packages])


def _imported(key: str, answer: dict, answers: dict[str, dict]) -> Finding:
    """The finding for what a child process tried; `answers` are those of the same child."""

    def broken(other: str) -> bool:
        return other != key and other in answers and not answers[other]["ok"]

    name, _, packages = TRIED[key]
    if answer["ok"]:
        return Finding(name, "ok", answer["detail"], "")

    missing = answer["kind"] in ("ModuleNotFoundError", "PackageNotFoundError")
    status = "fault"
    remedy = _install(*packages, force=not missing)
    if broken("torch"):
        detail = f"cannot be tried before torch is fixed ({answer['detail']})"
        remedy = _install(*TRIED["torch"][2], force=True)
    elif key == "torchvision" and not missing:
        detail = f"does not match torch ({answer['detail']})"
    elif key == "open_clip" and not missing and broken("torchvision"):
        detail = f"cannot be used before torchvision is fixed ({answer['detail']})"
        remedy = _install(*TRIED["torchvision"][2], force=True)
    elif missing:
        detail = f"is not installed ({answer['detail']})"
    else:
        detail = f"is installed but does not work: {answer['kind']}: {answer['detail']}"

    if key == "kernel" and "kernel python3" in answer["detail"]:
        detail = f"{answer['detail']}; the lessons would run without what is installed here"
        remedy = f'"{sys.executable}" -m ipykernel install --sys-prefix --name python3'
        if os.environ.get("JUPYTER_PATH"):
            remedy += "  (and unset JUPYTER_PATH, whose kernels come first)"
    if key == "widget_display":  # the cells still run, and the figures beside the widgets show
        status = "warning"
        detail += "; sliders and buttons would not show"
    if key == "jupyterlab":  # other programs open notebooks too
        status = "warning"
        detail += "; `mmlesson lab` would not start"
    return Finding(name, status, detail, remedy)


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    wanted = ".".join(map(str, NEEDS_PYTHON))
    if sys.version_info[:2] < NEEDS_PYTHON:
        yield Finding(
            "Python", "fault", f"{version} is too old; the course needs {wanted} or later",
            "install a newer Python, delete .venv and run `make setup`",
        )  # fmt: skip
    elif sys.maxsize < 2**32:
        yield Finding(
            "Python", "fault", f"{version} is a 32-bit one, and torch needs 64 bits", "install a 64-bit Python"
        )
    else:
        yield Finding("Python", "ok", f"{version} at {sys.executable}", "")


def available_memory() -> tuple[int, int]:
    """(bytes of memory that a new program can take, bytes of swap besides), within the limit of a container."""
    import psutil

    memory, swap = psutil.virtual_memory().available, psutil.swap_memory().free
    try:  # what a container may take, which the rest of the system does not show
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            used = int(Path("/sys/fs/cgroup/memory.current").read_text())
            return min(memory, max(0, int(limit) - used)), 0
    except (OSError, ValueError):
        pass
    return memory, swap


def free_disk(folder: Path) -> int:
    """Bytes that can still be written to the disk of `folder`, or of the nearest folder above it that exists."""
    import shutil

    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _memory(read: Callable[[], tuple[int, int]]) -> Iterator[Finding]:
    memory, swap = read()
    needs = f"a lesson takes up to {_gb(NEEDS_MEMORY)}"
    remedy = "close other programs (browsers and other notebooks' kernels first) and run `mmlesson doctor` again"
    if memory >= NEEDS_MEMORY:
        yield Finding("memory", "ok", f"{_gb(memory)} available", "")
    elif memory + swap >= NEEDS_MEMORY:
        yield Finding(
            "memory", "warning", f"{_gb(memory)} available and {_gb(swap)} of swap; {needs} and would be slow", remedy
        )
    else:
        yield Finding("memory", "fault", f"only {_gb(memory)} available; {needs}", remedy)


def _disk(read: Callable[[Path], int]) -> Iterator[Finding]:
    try:
        folder = assets.cache_dir()
    except gates.AssetError:
        return  # the finding on the cache says so
    free = read(folder)
    remedy = f"free some space, or set MMLESSON_CACHE to a folder on a disk with {_gb(NEEDS_DISK)} free"
    if free >= NEEDS_DISK:
        yield Finding("disk", "ok", f"{_gb(free)} free", "")
    else:
        status = "warning" if free >= LEAST_DISK else "fault"
        yield Finding("disk", status, f"only {_gb(free)} free at {folder}; the course needs {_gb(NEEDS_DISK)}", remedy)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _cache() -> Iterator[Finding]:
    try:
        yield Finding("cache", "ok", f"{assets.cache_dir()} is writable", "")
    except gates.AssetError as error:
        sentence, _, remedy = str(error).partition("). ")
        yield Finding("cache", "fault", f"{sentence})", remedy.rstrip("."))


def _data(data: Path | None) -> Iterator[Finding]:
    try:
        files = assets.manifest(data)["files"]
    except gates.AssetError as error:
        yield _broken("data files", error)
        return
    faults = 0
    for relative in files:
        try:
            assets.check_file(relative, data)
        except gates.AssetError as error:
            faults += 1
            yield _broken("data files", error)
    absent = [model for model in MODELS if not any(relative.startswith(f"models/{model}/") for relative in files)]
    if absent:
        faults += 1
        missing = ", no ".join(absent)
        sentence = (
            f"the manifest lists no {missing}, which the lessons load: {assets.how_to_restore(assets.MANIFEST, data)}."
        )
        yield _broken("data files", gates.AssetError(sentence))
    if not faults:
        total = sum(entry["bytes"] for entry in files.values())
        where = f" in {os.environ['MMLESSON_DATA']} (MMLESSON_DATA)" if os.environ.get("MMLESSON_DATA") else ""
        yield Finding(
            "data files",
            "ok",
            f"{len(files)} files, {total / 1e6:.1f} MB{where}, each with the sha256 of the manifest",
            "",
        )


def _own_clip() -> Iterator[Finding]:
    """Whether the folder that MMLESSON_CLIP names holds a model; names on the hub are not asked for here."""
    name = os.environ.get("MMLESSON_CLIP", "")
    if not name.startswith("local-dir:"):
        return
    try:
        folder = assets.expanded(name.removeprefix("local-dir:"))
        reading.read_object(folder / "open_clip_config.json")
        weights = sorted(folder.glob("*.safetensors"))
        if not weights:
            raise gates.AssetError(f"{folder} holds no safetensors: {reading.AGAIN}.")
        for file in weights:
            reading.read_shapes(file)
    except gates.AssetError as error:
        what, _, remedy = str(error).rstrip(".").rpartition(": ")
        yield Finding("MMLESSON_CLIP", "fault", what, f"{remedy}, or unset MMLESSON_CLIP to use the pocket model")
    else:
        yield Finding("MMLESSON_CLIP", "ok", f"{folder} holds a model", "")


def _indexes() -> Iterator[Finding]:
    """Each index of pictures in the cache that is damaged. An index with a path of its own is not known here."""
    try:
        found = sorted((assets.cache_dir() / "indexes").glob("*/pictures.lance"))
    except gates.AssetError:
        return  # the finding on the cache says so
    if not found:
        return
    from mmlesson.search import store

    for table in found:
        folder = table.parent
        made, wrong = store.examine(folder)
        if wrong is None:
            continue
        source = made["source"]
        remedy = f'delete the folder "{folder}": the next search makes it again'
        if source is not None and os.path.isdir(source):
            remedy = f'mmlesson search "{source}" "a picture" --model "{made["clip"]}"  (which makes it again)'
        yield Finding("index", "warning", f"{folder} is damaged ({wrong})", remedy)


def _checkpoints() -> Iterator[Finding]:
    """Each checkpoint in the cache from which a training cannot go on. One with a folder of its own is not known."""
    try:
        found = sorted(checkpoints.folder().glob(f"*/{checkpoints.CHECKPOINT}"))
    except gates.AssetError:
        return  # the finding on the cache says so
    for path in found:
        wrong = checkpoints.examine(path)
        if wrong is not None:
            remedy = f'delete the file "{path}": the next training of {path.parent.name} starts again, as with --fresh'
            yield Finding("checkpoint", "warning", f"no training can go on from {path} ({wrong})", remedy)


def _broken(name: str, error: gates.AssetError) -> Finding:
    """A fault from an error whose message is "what is wrong: how to fix it."."""
    what, _, remedy = str(error).rpartition(": ")
    return Finding(name, "fault", what or str(error), remedy.rstrip("."))


def _versions() -> Iterator[Finding]:
    """Whether what is installed is what pyproject.toml asks for, and what constraints.txt pins."""
    from packaging.requirements import InvalidRequirement, Requirement

    def installed(requirement: Requirement) -> str | None:
        try:
            return importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            return None

    try:
        needed = [Requirement(line) for line in importlib.metadata.requires("mmlesson") or []]
    except importlib.metadata.PackageNotFoundError:
        editable = f'"{sys.executable}" -m pip install -e "{assets.PACKAGE.parent}"'
        remedy = editable if assets.in_checkout() else _install("mmlesson")
        yield Finding("mmlesson", "warning", "is imported from a folder and not installed", remedy)
    else:
        wrong = []
        for requirement in needed:
            if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
                continue
            have = installed(requirement)
            if have is None:
                wrong.append((requirement, f"{requirement.name} is not installed"))
            elif not requirement.specifier.contains(have, prereleases=True):
                wrong.append((requirement, f"{requirement.name} is {have}, needs {requirement.specifier}"))
        if wrong:
            packages = [f'"{requirement.name}{requirement.specifier}"' for requirement, _ in wrong]
            yield Finding("requirements", "fault", "; ".join(reason for _, reason in wrong), _install(*packages))
        else:
            yield Finding("requirements", "ok", "everything that mmlesson requires is installed", "")

    pins = _constraints()
    if pins is None:
        return
    different = []
    for line in pins.read_text(encoding="utf-8").splitlines():
        line = line.split("#")[0].strip()
        if not line:
            continue
        try:
            pin = Requirement(line)
        except InvalidRequirement:
            continue
        if pin.marker and not pin.marker.evaluate():
            continue
        have = installed(pin)
        # a pin says which version, not that the package must be there
        if have is not None and not pin.specifier.contains(have, prereleases=True):
            different.append(f"{pin.name} is {have}, tested with {str(pin.specifier).removeprefix('==')}")
    if different:
        shown = "; ".join(different[:5]) + (f"; and {len(different) - 5} more" if len(different) > 5 else "")
        itself = f'-e "{assets.PACKAGE.parent}"' if assets.in_checkout() else "mmlesson"
        remedy = f'"{sys.executable}" -m pip install -c "{pins}" {itself}'
        yield Finding("versions", "warning", f"not the tested ones: {shown}", remedy)
    else:
        yield Finding("versions", "ok", f"those that {pins.name} pins", "")


def diagnose(
    data: Path | None = None,
    memory: Callable[[], tuple[int, int]] = available_memory,
    disk: Callable[[Path], int] = free_disk,
    tried: Iterable[str] = tuple(TRIED),
) -> Iterator[Finding]:
    """Yields a Finding for each thing that a lesson needs, in a fixed order; never raises.

    `data` is the data folder (None: the course's). `memory` and `disk` read what is free, in bytes.
    `tried` are the keys of the packages to import; all of them take about ten seconds.
    """
    tried = set(tried)
    with ThreadPoolExecutor(2) as pool:
        halves = [pool.submit(ask_children, [key for key in half if key in tried]) for half in (HEAVY, LIGHT)]
        yield from _alone("Python", _python)
        for half in halves:
            answers = half.result()
            for key in answers:
                yield _imported(key, answers[key], answers)

    yield from _alone("versions", _versions)
    yield from _alone("memory", functools.partial(_memory, memory))
    yield from _alone("cache", _cache)
    yield from _alone("disk", functools.partial(_disk, disk))
    yield from _alone("data files", functools.partial(_data, data))
    yield from _alone("MMLESSON_CLIP", _own_clip)
    yield from _alone("indexes", _indexes)
    yield from _alone("checkpoints", _checkpoints)


def _alone(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of one check. If the check itself fails, that is a warning, and the others still run."""
    try:
        yield from check()
    except Exception as error:
        yield Finding(name, "warning", f"could not be checked ({type(error).__name__}: {error})", _install("mmlesson"))


# ------------------------------------------------------------------------------------------ report


def report(as_json: bool = False, **options) -> int:
    """Print what `diagnose(**options)` finds; returns the exit status: 1 where a lesson would fail, else 0.

    `as_json` prints one JSON object on one line: {"ok", "faults", "warnings", "findings": [{…}, …]}.
    """
    findings = []
    for finding in diagnose(**options):
        findings.append(finding)
        if not as_json:
            print(_line(finding), flush=True)
    faults = sum(finding.status == "fault" for finding in findings)
    warnings = sum(finding.status == "warning" for finding in findings)

    if as_json:
        everything = {"ok": not faults, "faults": faults, "warnings": warnings, "findings": list(map(asdict, findings))}
        print(json.dumps(everything, ensure_ascii=False))
    elif faults:
        print(f"\nA lesson would fail here: {_count(faults, 'fault')} to fix, from the top down.")
    elif warnings:
        print(f"\nThe lessons run here, with {_count(warnings, 'warning')}.")
    else:
        print("\nEverything that the lessons need is here.")
    return 1 if faults else 0


def _line(finding: Finding) -> str:
    sign = {"ok": "  ok     ", "warning": "! warning", "fault": "X FAULT  "}[finding.status]
    line = f"{sign}  {finding.name}: {finding.detail}"
    return f"{line}\n{'':11}fix it: {finding.remedy}" if finding.remedy else line


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
