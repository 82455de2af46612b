"""One notebook of a learner, run where it can do no harm: started here, watched from here, and ended from here.

On Linux it runs behind the walls of `walls.py`. Where they cannot be built (another system; namespaces forbidden, as on
some servers and on Ubuntu since 24.04) nothing is run, unless the teacher trusts the notebooks (`walled=False`): then
only the limits hold, in a temporary copy of the folder.

This process believes nothing that comes out: it reads so many bytes and no more, and takes from them only numbers of
exercises and the three verdicts. A notebook that lies to its own `check` can still claim a verdict.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmlesson import gates
from mmlesson.models import assets

UNSHARE = ("unshare", "-r", "--net", "--ipc", "--uts", "--pid", "--fork", "--mount", "--kill-child", "--")
INSIDE = "mmlesson.teach.grading.inside"
MOST_OUTPUT = 200_000  # bytes of verdicts
MOST_COPIED = 500_000_000  # bytes of files beside a notebook
LEAST_FREE = 300_000_000  # bytes of memory that are left to the machine
EVERY = 0.1  # seconds between two looks
PROTECTION = (
    "Each notebook runs in a kernel of its own without a network. It sees a copy of its folder. Of this machine it "
    "sees only the system's programs, Python and the course, and can change none of them. Time, memory and the number "
    "of processes are limited. This does not protect against faults of the Linux kernel, nor against a notebook that "
    "cheats: its code can change what `check` says. Read the answers that decide something."
)
UNWALLED = (
    "These notebooks run with all your rights, in a copy of their folder, with limits of time, memory and processes. "
    "Python is kept off the network. They could read, change and delete your files, and leave programs running."
)


@dataclass(frozen=True)
class Limits:
    """What a notebook may use. A lesson takes one to two minutes and less than 3 GB."""

    seconds: float = 900  # all of it
    cell_seconds: int = 300
    memory: int = 6_000_000_000  # bytes, all its processes together
    disk: int = 1_000_000_000  # bytes that it may write
    processes: int = 100


@dataclass
class Outcome:
    """What came out: verdicts by the number of the exercise, and why it ended early ("" where it did not)."""

    verdicts: dict[str, str] = field(default_factory=dict)
    stopped: str = ""


def walls_here() -> str:
    """ "" where the walls can be built on this machine; else a sentence that says why not."""
    if sys.platform != "linux":
        return "walls around a notebook can be built on Linux only"
    if os.environ.get("MMLESSON_NO_NAMESPACE") or not shutil.which("unshare"):
        return "the program unshare (package util-linux) is missing"
    with tempfile.TemporaryDirectory() as place:
        config = _config(Path(place), ["/proc/self/exe", "-c", ""], Limits())
        try:
            done = subprocess.run(_walled(config), capture_output=True, text=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            return "the walls could not be built within a minute"
    said = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else f"this machine does not allow it ({said[-1] if said else done.returncode})"


def run(notebook: Path, limits: Limits, walled: bool = True) -> Outcome:
    """Run a copy of a notebook to its end, or until a limit; returns what it said of its exercises.

    With `walled` it raises AssetError where `walls_here` has a reason.
    """
    reason = walls_here() if walled else ""
    if reason:
        raise gates.AssetError(f"Nothing was run, because {reason}.")
    with tempfile.TemporaryDirectory(prefix="mmlesson-grade-", ignore_cleanup_errors=True) as place:
        (Path(place) / "work").mkdir()
        reason = _copy(notebook, Path(place) / "work")
        if reason:
            return Outcome(stopped=reason)
        inside = ["-m", INSIDE, "notebook.ipynb", str(limits.cell_seconds)]
        if walled:
            return _watched(_walled(_config(Path(place), [sys.executable, *inside], limits)), None, limits)
        return _watched([sys.executable, *inside], _options_without_walls(Path(place), limits), limits)


def _copy(notebook: Path, work: Path) -> str:
    """Copy a notebook and the files beside it; returns why that cannot be, or "". No links, no other notebooks."""
    shutil.copyfile(notebook, work / "notebook.ipynb")
    room = MOST_COPIED
    for folder, below, names in os.walk(notebook.parent):
        below[:] = [name for name in below if not name.startswith(".") and not Path(folder, name).is_symlink()]
        for name in names:
            path = Path(folder, name)
            if path.is_symlink() or not path.is_file() or name.endswith(".ipynb"):
                continue
            room -= path.stat().st_size
            if room < 0:
                return f"more than {MOST_COPIED // 1_000_000} MB of files lie beside it"
            target = work / path.relative_to(notebook.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return ""


# -------------------------------------------------------------------------------------------- starting


def _walled(config: dict) -> list[str]:
    return [*UNSHARE, sys.executable, "-I", str(Path(__file__).with_name("walls.py")), json.dumps(config)]


def _config(place: Path, command: list[str], limits: Limits) -> dict:
    """What `walls.py` needs to know. `place` is a new folder with the copied notebook in place/work."""
    for name in ("root", "work"):
        (place / name).mkdir(exist_ok=True)
    return {
        "root": str(place / "root"),
        "work": str(place / "work"),
        "visible": _visible(),
        "copies": [[str(path), f"/tmp/cache/{path.name}"] for path in _sprites()],
        "command": command,
        "environment": _environment("/tmp"),
        "memory": 2 * limits.memory,  # of one process, counted as it is asked for; the sum in use is watched here
        "disk": limits.disk,
        "processes": limits.processes,
    }


def _visible() -> list[str]:
    """The folders of Python and of the course, each once, none inside another."""
    places = {Path(sys.prefix), Path(sys.base_prefix), assets.PACKAGE, assets.data_dir()}
    places |= {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    places |= {Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")}
    places |= {Path(sys.executable).resolve().parent}
    found: list[Path] = []
    for path in sorted({place.absolute() for place in places if place.is_dir()}, key=lambda path: len(path.parts)):
        if not any(other in (path, *path.parents) for other in found):
            found.append(path)
    return [str(path) for path in found]


def _sprites() -> list[Path]:
    """Rendered sprites, if they are in the cache: without them each notebook would render them again."""
    with contextlib.suppress(gates.AssetError):
        return sorted(assets.cache_dir().glob("*.sprites"))
    return []


def _environment(scratch: str) -> dict[str, str]:
    """Nothing of the teacher's own: no tokens, no addresses of agents."""
    kept = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ}
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": f"{scratch}/home",
        "TMPDIR": scratch,
        "PYTHONPATH": str(assets.PACKAGE.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MMLESSON_CACHE": f"{scratch}/cache",
        "MMLESSON_PROGRESS": "off",
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",
        **kept,
    }


def _options_without_walls(place: Path, limits: Limits) -> dict:
    from mmlesson.teach.grading import offline

    for name in ("home", "cache", "hook"):
        (place / name).mkdir()
    (place / "hook" / "sitecustomize.py").write_text(offline.HOOK, encoding="utf8")
    for path in _sprites():
        shutil.copyfile(path, place / "cache" / path.name)
    environment = _environment(str(place))
    environment["PYTHONPATH"] = os.pathsep.join([str(place / "hook"), environment["PYTHONPATH"]])
    if os.name == "nt":  # Windows finds nothing without these
        environment |= {name: os.environ[name] for name in ("SYSTEMROOT", "PATH") if name in os.environ}
        return {"cwd": place / "work", "env": environment}

    def limited() -> None:
        from mmlesson.teach.grading import walls

        walls.limit(2 * limits.memory, limits.disk, _processes_of_this_user() + limits.processes)

    return {"cwd": place / "work", "env": environment, "preexec_fn": limited}


def _processes_of_this_user() -> int:
    """So many threads run already: without namespaces, the limit of the system counts them too."""
    import psutil

    own = psutil.Process().username()
    return sum(each.info["num_threads"] or 1 for each in psutil.process_iter(["username", "num_threads"])
               if each.info["username"] == own)  # fmt: skip


# -------------------------------------------------------------------------------------------- watching


def _watched(command: list[str], options: dict | None, limits: Limits) -> Outcome:
    """Start the command, and look at it ten times a second until it ends or goes too far. All of it is gone then.

    `options` are those of subprocess.Popen; None for a command that builds walls.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        **({"preexec_fn": _end_with_this_process} if options is None else options),
    )
    said, why = bytearray(), ""
    try:
        os.set_blocking(process.stdout.fileno(), False)
        end, before = time.monotonic() + limits.seconds, _running_here()
        while process.poll() is None and not why:
            time.sleep(EVERY)
            said += process.stdout.read(MOST_OUTPUT) or b""
            why = _too_far(process.pid, limits, before) or ("it printed too much" if len(said) > MOST_OUTPUT else "")
            why = why or (f"not done after {limits.seconds:g} seconds" if time.monotonic() > end else "")
    finally:
        _end(process, walled=options is None)
    if not why:
        said += process.stdout.read(MOST_OUTPUT) or b""
    process.stdout.close()
    outcome = _believed(bytes(said[:MOST_OUTPUT]))
    outcome.stopped = why or outcome.stopped
    return outcome


def _end_with_this_process() -> None:
    """Where whoever watches is killed, nobody would end the notebook: so Linux does."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def _running_here() -> int:
    """How many processes this machine has: quick to count, even where a notebook makes thousands."""
    return sum(name.isdigit() for name in os.listdir("/proc")) if os.path.isdir("/proc") else 0


def _family(pid: int) -> list:
    import psutil

    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def _too_far(pid: int, limits: Limits, before: int) -> str:
    import psutil

    too_many = f"more than {limits.processes} processes"
    if _running_here() > before + 5 * limits.processes + 500:
        return too_many
    family = _family(pid)
    if len(family) > limits.processes:
        return too_many
    held = 0
    for each in family:
        with contextlib.suppress(psutil.Error):
            held += each.memory_info().rss
    if held > limits.memory:
        return f"more than {limits.memory / 1e9:g} GB of memory"
    return "the memory of this machine ran out" if psutil.virtual_memory().available < LEAST_FREE else ""


def _end(process: subprocess.Popen, walled: bool) -> None:
    """End the process and all that came from it. Behind walls, all of it dies with the first process there."""
    import psutil

    below: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        below = psutil.Process(process.pid).children(recursive=not walled)
        for each in below:
            each.kill()
    process.kill()
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # what left its parents, where there are no walls
    process.wait()
    psutil.wait_procs(below, timeout=30)  # a process is gone a moment after it is killed


def _believed(said: bytes) -> Outcome:
    """The verdicts in what came out; the best one of each exercise. Anything else in it is passed over."""
    outcome = Outcome(stopped="the kernel did not start, or was ended")
    for each in _objects(said):
        number, verdict, stopped = each.get("exercise"), each.get("verdict"), each.get("stopped")
        if isinstance(stopped, str):
            outcome.stopped = stopped[:100]
        if isinstance(number, str) and len(number) < 10:
            outcome.verdicts[number] = better(outcome.verdicts.get(number), verdict)
    return outcome


def _objects(said: bytes) -> Iterator[dict]:
    for line in said.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(line)
            if isinstance(found, dict):
                yield found


def better(one: object, other: object) -> str:
    """The better one of two verdicts; what is none counts as "open"."""
    ranks = ("open", "not yet", "right")
    return max((each for each in (one, other, "open") if each in ranks), key=ranks.index)
