"""What JupyterLab needs to present: large type, the page's script, and a kernel that replays.

All of it lies in a folder of its own in the cache. `JUPYTER_CONFIG_PATH` and `JUPYTER_PATH` name this folder for the
one server that `mmlesson lab --present` starts; whatever else the teacher's Jupyter is set to stays as it is.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from mmlesson import gates
from mmlesson.teach import lab
from mmlesson.teach.present import copies, replay

ENVIRONMENT = "MMLESSON_PRESENT"
FOLDER = "present"  # in the folder of the learner's own copies
DEFAULTS = lab.DEFAULTS | {
    # all cells are in the page at once, so that it never jumps while somebody scrolls
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none", "codeCellConfig": {"lineWrap": True}},
}
HOW = """\
Presenting. A slow cell shows its stored result at once, under a mark; press T to run it truly. What is replayed is also
computed, behind what you show: a widget, or a cell that you changed, waits for that and says so. Run a cell again, and
it runs truly. Your changes to these copies stay; --fresh starts anew."""
NAME = "mmlesson-present"  # of the page's script, as an extension of JupyterLab


def asked_for() -> bool:
    """Whether MMLESSON_PRESENT asks to present."""
    return os.environ.get(ENVIRONMENT, "").strip().lower() not in ("", "0", "no", "off", "false")


def settings_folder(folder: Path, notebooks: Path) -> Path:
    """Write everything into `folder`, which it returns, for JUPYTER_CONFIG_PATH and JUPYTER_PATH."""
    results = folder / "stored.json"
    gates.write_atomically(results, json.dumps(copies.stored(notebooks)).encode())
    lab.settings_folder(folder, DEFAULTS)
    kernel = {
        "argv": [
            sys.executable,
            "-m",
            "ipykernel_launcher",
            "-f",
            "{connection_file}",
            f"--IPKernelApp.extra_extensions={replay.__name__}",
        ],
        "display_name": "Python 3 (presents)",
        "language": "python",
        "env": {replay.ENVIRONMENT: str(results)},
        "metadata": {"debugger": False},
    }
    gates.write_atomically(folder / "kernels" / "python3" / "kernel.json", json.dumps(kernel).encode())
    package = {
        "name": NAME,
        "version": "1.0.0",
        "jupyterlab": {"extension": True, "_build": {"load": "page.js", "extension": "./extension"}},
    }
    extension = folder / "labextensions" / NAME
    gates.write_atomically(extension / "package.json", json.dumps(package).encode())
    gates.write_atomically(extension / "page.js", Path(__file__).with_name("page.js").read_bytes())
    return folder
