"""What all tests share: a cache of their own, a network that can be cut off, a browser, and no skips in CI.

Environment variables: CI=true makes a skipped test, and a missing browser, a failure.
MMLESSON_TEST_CACHE names a folder to keep the rendered sprites in from one run to the next.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

pytest_plugins = ["small_clips"]  # fixtures of small random CLIPs

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


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


# ------------------------------------------------------------------------------------------- fixtures


@pytest.fixture(scope="session", autouse=True)
def own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every test, and what it starts, works with the course's own data and one cache that is only the tests'."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MMLESSON_CLIP", "MMLESSON_DATA"):
            patch.delenv(name, raising=False)
        cache = os.environ.get("MMLESSON_TEST_CACHE") or tmp_path_factory.mktemp("cache")
        patch.setenv("MMLESSON_CACHE", str(cache))
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


# ------------------------------------------------------------------------------------ browser, or none


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    needing = [item for item in items if item.get_closest_marker("browser")]
    if not needing or in_ci() or find_browser():
        return
    config.hook.pytest_deselected(items=needing)
    items[:] = [item for item in items if item not in needing]
    config.stash[_LEFT_OUT] = len(needing)


_LEFT_OUT = pytest.StashKey[int]()


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
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
