"""A process of this user for whom permissions hold, as a script: `run(code)`. For root they usually do not.

The tests run as root in a container, and root may read and write everything. A process may give that up: it drops two
capabilities of Linux (capabilities(7)) and begins anew. Then a file of root's without permissions is closed to root.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

PR_CAPBSET_DROP = 24  # prctl(2)
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2


def _obey() -> None:
    """Give up root's right to pass over permissions; it holds from the next program on that this process starts."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "this root cannot give up its rights")


def run(code: str, folder: Path) -> subprocess.CompletedProcess:
    """Run Python code in `folder`, with the tests' own modules; returns what it printed and its exit status."""
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here.parent), str(here), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=_obey,
        env={**os.environ, "PYTHONPATH": paths, "MMLESSON_CACHE": str(folder / "cache")},
    )
