"""JupyterLab for a learner: its settings, and a server that ends with all its kernels when it is told to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from mmlesson import gates

FIRST_LESSON = "01_clip.ipynb"
LONGEST_END = 30  # seconds that the server may take to end its kernels
# Where `mmlesson lab` differs from JupyterLab's defaults. What computes in a widget runs between the cells, not beside
# them: pyplot and `catch_warnings` cannot be used by two threads at once. The buttons that have to answer while a cell
# runs see to it themselves: widgets/always.py. And it asks nobody whether news may be fetched: a class may be offline.
DEFAULTS = {
    "@jupyterlab/apputils-extension:kernels-settings": {"commsOverSubshells": "disabled"},
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
}


def settings_folder(folder: Path, defaults: dict) -> Path:
    """Write `defaults` where JupyterLab looks for them; returns `folder`, for JUPYTER_CONFIG_PATH."""
    text = json.dumps(defaults)
    gates.write_atomically(folder / "labconfig" / "default_setting_overrides.json", text.encode())
    return folder


def command(folder: Path, first: str, no_browser: bool) -> list[str]:
    """The command of a server on the notebooks of `folder`; the page opens at the notebook `first`."""
    asked = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}"]
    if (folder / first).is_file():
        asked.append(f"--LabApp.default_url=/lab/tree/{first}")
    # a class may have no network: JupyterLab would ask for extensions, for newer versions of itself, and for news
    asked.append("--LabApp.extension_manager=readonly")
    asked.append("--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate")
    asked.append("--LabApp.news_url=None")
    if no_browser:
        asked.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        asked.append("--allow-root")  # in a container there is often nobody else
    return asked


def serve(asked: Sequence[str], settings: Path) -> int:
    """Run the server until it ends, or until this process is told to end; returns the exit status.

    SIGTERM, SIGHUP and Ctrl-C end the server with its kernels. At a terminal Ctrl-C has to come twice, because the
    kernels hold what the learner computed.
    """
    # JupyterLab finds its settings in `settings`, and a kernel and extensions where present/lab.py wrote some
    paths = {
        name: os.pathsep.join(filter(None, [os.environ.get(name), str(settings)]))  # the learner's own come first
        for name in ("JUPYTER_CONFIG_PATH", "JUPYTER_PATH")
    }
    ending = _Ending()
    before = {number: signal.signal(number, ending) for number in _signals()}  # first: a signal may come at any time
    try:
        # in a session of its own: the keys of the terminal are for this process, which passes them on
        environment = {**os.environ, **paths}
        server = subprocess.Popen(asked, env=environment, start_new_session=True)
        ending.watch(server)
        while True:
            try:
                status = server.wait(timeout=1)
                return 128 + ending.by if ending.by else status
            except subprocess.TimeoutExpired:
                ending.check()
    finally:
        ending.end_all()
        for number, handler in before.items():
            signal.signal(number, handler)


def _signals() -> list[int]:
    return [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class _Ending:
    """What the signals do to a server."""

    def __init__(self):
        self.by = 0  # the number of the signal that ended it
        self._server: subprocess.Popen | None = None
        self._process: psutil.Process | None = None
        self._family: set[psutil.Process] = set()  # the kernels, as far as they are known
        self._seconds_left = LONGEST_END
        self._asked_once = False

    def watch(self, server: subprocess.Popen) -> None:
        """From now on the signals end this server; one that came before ends it now."""
        self._process = psutil.Process(server.pid)
        self._server = server
        if self.by:
            server.terminate()

    def __call__(self, number: int, frame) -> None:
        if number == signal.SIGINT and sys.stdin is not None and sys.stdin.isatty() and not self._asked_once:
            self._asked_once = True
            print("\nCtrl-C once more ends JupyterLab and its kernels; your notebooks stay.", file=sys.stderr)
            return
        self.by = number
        if self._server is not None:
            self._look()
            self._server.terminate()  # it ends its kernels first

    def check(self) -> None:
        """Called every second: learn the kernels, and lose patience with a server that does not end."""
        self._look()
        if self.by:
            self._seconds_left -= 1
            if self._seconds_left < 0:
                self._server.kill()

    def end_all(self) -> None:
        """End whatever is left of the server and of what it started."""
        if self._server is None:
            return
        self._look()
        if self._server.poll() is None:
            self._server.terminate()
            try:
                self._server.wait(LONGEST_END)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        left = [process for process in self._family if process.is_running()]
        for process in left:
            try:
                process.terminate()
            except psutil.Error:
                continue
        for process in psutil.wait_procs(left, timeout=5)[1]:
            try:
                process.kill()
            except psutil.Error:
                continue

    def _look(self) -> None:
        try:
            self._family.update(self._process.children(recursive=True))
        except psutil.Error:
            return
