"""Processes that need not start from nothing: a server of one thread imports torch once, and forks for each of them.

    process = Forked(code)      runs as `subprocess.Popen([sys.executable, "-c", code], text=True)` with pipes does

A process of its own is what each is: it can be killed, wait for a lock, and lose what it had. Only the two and a half
seconds in which every process would import torch are saved. What starts threads when it is imported (lancedb), or reads
the environment then (huggingface_hub), is left to each. Where there is no such server (Windows), each starts anew.
"""

import multiprocessing
import os
import sys
import tempfile
import weakref
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

BEFORE = ["torch", "pyarrow", "mmlesson.search.index", "mmlesson.search.store", "mmlesson.search.synchronise"]


def _run(code: str, output: Connection, errors: str, folder: str, environment: dict[str, str]) -> None:
    os.dup2(output.fileno(), 1)
    output.close()
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), open(errors, "w", buffering=1)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})


class Forked:
    """`stdout`, `communicate`, `wait`, `poll`, `kill`, `send_signal` and `returncode` are those of `Popen`."""

    def __init__(self, code: str, environment: Mapping[str, str] | None = None):
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload(BEFORE)
        reader, writer = context.Pipe(duplex=False)
        errors, self._errors = tempfile.mkstemp(suffix=".stderr")
        os.close(errors)
        given = code, writer, self._errors, os.getcwd(), dict(os.environ if environment is None else environment)
        weakref.finalize(self, Path(self._errors).unlink, missing_ok=True)
        self._process = context.Process(target=_run, args=given, daemon=True)  # it ends with the tests at the latest
        self._process.start()
        writer.close()
        self.stdout = os.fdopen(os.dup(reader.fileno()))
        reader.close()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int:
        self._process.join()
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def send_signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def communicate(self) -> tuple[str, str]:
        """What it still says until it ends, and all that it wrote to its standard error."""
        with self.stdout:
            said = self.stdout.read()
        self.wait()
        return said, Path(self._errors).read_text(errors="replace")


def run(code: str, environment: Mapping[str, str] | None = None) -> str:
    """What the code prints; AssertionError with what it wrote to its standard error where it fails."""
    process = Forked(code, environment)
    said, wrote = process.communicate()
    assert process.returncode == 0, wrote
    return said
