"""A process of this user for whom permissions hold, as a script: `run(code)`. For root they usually do not.

The tests run as root in a container, and root may read and write everything. A process may give that up: it drops two
capabilities of Linux (capabilities(7)). Then a file of root's without permissions is closed to root.
"""

import ctypes
import os
from pathlib import Path
from types import SimpleNamespace

from forked import Forked

PR_CAPBSET_DROP = 24  # prctl(2)
VERSION_3 = 0x20080522  # capget(2)
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2


class Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class Half(ctypes.Structure):
    """32 of the 64 capabilities of a thread, a bit each."""

    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


def obey() -> None:
    """Give up root's right to pass over permissions, here and in all programs and threads that start from here."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        header, halves = Header(VERSION_3, 0), (Half * 2)()
        done = libc.capget(ctypes.byref(header), halves)
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            done = done or libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
            for name, _ in Half._fields_:
                setattr(halves[0], name, getattr(halves[0], name) & ~(1 << capability))
        if done or libc.capset(ctypes.byref(header), halves):
            raise OSError(ctypes.get_errno(), "this root cannot give up its rights")


def run(code: str, folder: Path) -> SimpleNamespace:
    """Run Python code in `folder`, with the tests' own modules; returns what it printed and its exit status."""
    begin = f"import os, permissions\npermissions.obey()\nos.chdir({str(folder)!r})\n"
    process = Forked(begin + code, {**os.environ, "MMLESSON_CACHE": str(folder / "cache")})
    printed, errors = process.communicate()
    return SimpleNamespace(returncode=process.returncode, stdout=printed, stderr=errors)
