"""The clock of a newcomer: from a bare clone to a picture that they made, step by step, in a home that is empty.

    .venv/bin/python tests/newcomer.py

It clones this repository, runs `make setup` and `mmlesson lab` there, opens the page in a browser, runs lesson 1 up to
its first figure, and draws a picture in a terminal. It prints the seconds of each step. It needs what the tests need, a
browser, and a network for the packages.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from browser import HANG, chromium
from conftest import find_browser

ROOT = Path(__file__).resolve().parents[1]


class Clock:
    def __init__(self):
        self.start = self.last = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        print(f"{now - self.last:7.1f} s  {step}", flush=True)
        self.last = now

    def total(self) -> None:
        print(f"{self.last - self.start:7.1f} s  together")


def main() -> int:
    browser_path = find_browser()
    if browser_path is None:
        print("There is no Chrome or Chromium here (Debian and Ubuntu: make browser, as root).", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        home, course = Path(scratch, "home"), Path(scratch, "mmlesson")
        home.mkdir()
        own = ("MMLESSON_", "JUPYTER_", "XDG_", "VIRTUAL_ENV")  # what this machine's user has set for themselves
        environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        environment["HOME"] = str(home)
        settings = Path.home() / ".config" / "pip"  # where this machine's packages come from, if it says so
        if settings.is_dir():
            shutil.copytree(settings, home / ".config" / "pip")
        clock = Clock()
        subprocess.run(["git", "clone", "--quiet", ROOT, course], check=True)
        clock.lap("git clone (from this disk)")
        subprocess.run(["make", "setup"], cwd=course, env=environment, check=True)
        clock.lap("make setup")
        picture(course, environment, browser_path, clock)
        command = [".venv/bin/mmlesson", "draw", "a sunflower on a blue background", "--out", "sunflower.png"]
        subprocess.run(command, cwd=course, env=environment, check=True)
        clock.lap("mmlesson draw: a sheet of drawings in a file")
        clock.total()
    return 0


def picture(course: Path, environment: dict[str, str], browser_path: str, clock: Clock) -> None:
    """From `mmlesson lab` to the first figure of lesson 1."""
    command = [".venv/bin/mmlesson", "lab", "--no-browser"]
    options = dict(cwd=course, env=environment, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True)
    lab = subprocess.Popen(command, **options)
    try:
        for line in lab.stdout:
            if address := re.search(r"http://(?:localhost|127\.0\.0\.1):\d+/\S*token=\w+", line):
                break
        else:
            raise RuntimeError("`mmlesson lab` ended before it said its address.")
        clock.lap("mmlesson lab: the server is up")
        with chromium(browser_path) as browser:
            browser.page.goto(address[0])
            browser.page.get_by_role("heading", name="Lesson 1").first.wait_for()
            clock.lap("the page shows lesson 1, at its first cell")
            figure = browser.page.locator(".jp-CodeCell").first.locator(".jp-OutputArea-output img")
            figure.evaluate("image => image.remove()")  # the stored one
            browser.page.locator(".jp-Notebook .jp-Cell").first.click()
            for _ in range(4):
                browser.page.keyboard.press("Shift+Enter")
            figure.wait_for(timeout=1000 * HANG)
            clock.lap("Shift+Enter four times: the first figure, three photographs with their labels")
    finally:
        lab.send_signal(signal.SIGTERM)
        lab.wait()


if __name__ == "__main__":
    sys.exit(main())
