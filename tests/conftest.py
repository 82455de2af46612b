"""What all tests share: one thread each, one cache, a network that can be cut off, a browser, and no skips in CI.

`make test` runs the tests in several processes (pytest-xdist). Each process takes whole files, so that the fixtures of
a file are made once; each lesson is a unit of its own. What takes longest starts first, see `SLOW`.

Environment variables: CI=true makes a skipped test, and a missing browser, a failure.
MMLESSON_TEST_CACHE names a folder to keep the rendered sprites in from one run to the next.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import hypothesis
import pytest

pytest_plugins = ["small_clips"]  # fixtures of small random CLIPs

# Several processes test at once. With more than one thread each they would wait for each other. This also holds for
# all that the tests start, and it has to be said before numpy or torch is imported.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# A shell that starts the tests in the background (`make test &`, a cron job) has them ignore Ctrl-C, and so would all
# that the tests start. Several tests press Ctrl-C in a program of their own, and wait for what it does.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).resolve().parent
BROWSERS = (
    "google-chrome",
    "google-chrome-stable",
    "chromium",
    "chromium-browser",
    "chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)
NO_BROWSER = "no Chrome or Chromium was found; install one (Debian and Ubuntu: make browser, as root)"

MEMORY_OF_A_PROCESS = 3e9  # bytes: a lesson's kernel and the tests around it

# The files (by how their names begin) with tests that execute lessons, drive a browser, train or paint. `make check`
# leaves them out. They start in this order, the longest first: what starts last would keep one core busy alone.
SLOW = (
    "test_notebooks",
    "test_lessons_other_clip",
    "test_browser",
    "test_widgets",
    "test_teach_lessons",
    "test_teach_slides_browser",
    "test_teach_site",
    "test_teach_grade",
    "test_search_cluster",
    "test_train",
    "test_painter",
    "test_measure",
    "test_packaging",
)
QUICK = ("test_lesson_is_whole", "test_a_fault_is_found")  # in those files, what is quick all the same
TOGETHER = {"test_teach_figures_contrast.py": "test_teach_figures.py"}  # in one process: they look at the same figures
LESSONS_RUN = "test_lesson_runs_again"  # the lessons themselves, one unit of work each; under another CLIP too


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than a few seconds; `make check` leaves it out")
    # a slow machine is no fault of the code: no example has a limit in seconds
    hypothesis.settings.register_profile("tests", deadline=None)
    hypothesis.settings.load_profile("tests")


# ------------------------------------------------------------------------------------------- fixtures


@pytest.fixture(scope="session", autouse=True)
def own_environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every test, and what it starts, works with the course's own data and one cache that is only the tests'."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MMLESSON_CLIP", "MMLESSON_DATA"):
            patch.delenv(name, raising=False)
        cache = os.environ.get("MMLESSON_TEST_CACHE")
        if not cache:  # one for all processes of this run: the first one that needs the sprites renders them
            base = tmp_path_factory.getbasetemp()
            cache = (base.parent if hasattr(request.config, "workerinput") else base) / "cache"
        patch.setenv("MMLESSON_CACHE", str(cache))
        patch.setenv("MMLESSON_PROGRESS", str(tmp_path_factory.mktemp("progress")))  # what `check` notes of a learner
        yield


@pytest.fixture(scope="session")
def without_network() -> Callable[[Sequence[str | Path]], list[str]]:
    """A function from a command to one that runs it with the network cut off; see without_network.py."""

    def wrap(command: Sequence[str | Path]) -> list[str]:
        return [sys.executable, str(TESTS / "without_network.py"), *map(str, command)]

    return wrap


@pytest.fixture(scope="session")
def browser_path() -> str:
    """The path of a Chrome or Chromium, for tests marked `browser`."""
    found = find_browser()
    if found is None:
        pytest.fail(f"This test needs a browser: {NO_BROWSER}.", pytrace=False)
    return found


# ------------------------------------------------------------------------------- which tests, and in which order


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        quick = item.name.partition("[")[0] in QUICK
        if (_rank(item.path.stem) < len(SLOW) and not quick) or item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.slow)
    items.sort(key=_when)  # the order inside a file stays

    needing = [item for item in items if item.get_closest_marker("browser")]
    if not needing or in_ci() or find_browser():
        return
    config.hook.pytest_deselected(items=needing)
    items[:] = [item for item in items if item not in needing]
    config.stash[_LEFT_OUT] = len(needing)


def _when(item: pytest.Item) -> tuple[bool, int]:
    return not item.name.startswith(LESSONS_RUN), _rank(item.path.stem)


def _rank(file: str) -> int:
    return next((rank for rank, start in enumerate(SLOW) if file.startswith(start)), len(SLOW))


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    from xdist.scheduler import LoadScopeScheduling

    class FilesAndLessons(LoadScopeScheduling):
        """A process takes one file after the other; a lesson counts as a file, and so do files that belong together."""

        def _split_scope(self, nodeid: str) -> str:
            folder, slash, file = nodeid.partition("::")[0].rpartition("/")
            return nodeid if LESSONS_RUN in nodeid else folder + slash + TOGETHER.get(file, file)

    return FilesAndLessons(config, log)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, for `-n auto`
def pytest_xdist_auto_num_workers() -> int:
    """As many processes as this one may use cores, and as memory has room for."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(psutil.virtual_memory().available / MEMORY_OF_A_PROCESS)))


# --------------------------------------------------------------------------------------- what is said at the end

_LEFT_OUT = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # one of several processes: the first one speaks for all
        session.config.workeroutput["left_out"] = session.config.stash.get(_LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node) -> None:
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", 0)


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    notes = [value for report in reports for name, value in report.user_properties if name == "note"]
    if notes:
        terminalreporter.section("notes", sep="-")
        for note in notes:
            terminalreporter.line(note)
    left_out = config.stash.get(_LEFT_OUT, 0)
    if left_out:
        terminalreporter.section("browser tests", sep="-")
        terminalreporter.line(f"{left_out} tests that need a browser were left out: {NO_BROWSER}.")


# ----------------------------------------------------------------------------------- no skips in CI


def _not_skipped(report):
    if in_ci() and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return _not_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return _not_skipped((yield))
