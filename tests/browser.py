"""A headless Chrome or Chromium for the tests, and a JupyterLab for it to open. Nothing comes from outside.

    with chromium(path) as browser:             a fresh profile; browser.page is Playwright's page
    with jupyterlab(folder, scratch) as server: a server on this machine with settings of its own
    render(path, page.html, page.png)           a page as one long picture
    run_all(browser, shown)                     all cells of the notebook that the page shows

What a page asks of another machine is refused at once and kept in `browser.outside`. Nothing here judges speed:
whatever a test waits for may take `HANG` seconds.
"""

import io
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
from PIL import Image
from playwright.sync_api import Locator, Page, expect, sync_playwright

from mmlesson.teach.lab import DEFAULTS
from mmlesson.teach.present.lab import DEFAULTS as PRESENTS

ROOT = Path(__file__).resolve().parents[1]
SCREENSHOTS = ROOT / "build" / "screenshots"
HANG = 3600  # seconds after which something that a test waits for will never come
ERROR = "[data-mime-type='application/vnd.jupyter.error'], [data-mime-type='application/vnd.jupyter.stderr']"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
FLAGS = (
    "--no-sandbox",  # Chromium's own sandbox often cannot start in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
)
TALLEST = 8000  # pixels that Chromium surely draws in one screenshot


@dataclass
class Browser:
    """A browser with one page; `requests` is every address that it asked for, in order."""

    page: Page
    requests: list[str] = field(default_factory=list)

    @property
    def outside(self) -> list[str]:
        return [address for address in self.requests if not inside(address)]

    def screenshot(self, name: str, of=None) -> Path:
        """A picture of the page, or of one element of it, kept in build/screenshots."""
        path = SCREENSHOTS / f"{name}.png"
        (of or self.page).screenshot(path=path)
        return path


def inside(address: str) -> bool:
    """Whether an address leads nowhere but to this machine."""
    parts = urlsplit(address)
    return parts.scheme in ("data", "blob", "about", "file") or parts.hostname in ("localhost", "127.0.0.1", "::1")


@contextmanager
def chromium(executable: str, width: int = 1280, height: int = 900) -> Iterator[Browser]:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=executable,
            headless=True,
            args=list(FLAGS),
            viewport={"width": width, "height": height},
        )
        try:
            browser = Browser(context.pages[0])
            context.set_default_timeout(1000 * HANG)
            expect.set_options(timeout=1000 * HANG)
            context.on("request", lambda request: browser.requests.append(request.url))
            browser.page.on("websocket", lambda websocket: browser.requests.append(websocket.url))
            context.route(lambda address: not inside(address), lambda route: route.abort())
            yield browser
        finally:
            context.close()


def render(executable: str, page: Path, picture: Path, width: int = 1100) -> list[str]:
    """Draw an HTML file in its whole length into a PNG; returns what it asked for, itself and data: left out."""
    # in a thread of its own: Playwright runs once in each, and the test that calls this may have a page open
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_render, executable, page, picture, width).result()


def _render(executable: str, page: Path, picture: Path, width: int) -> list[str]:
    address = page.resolve().as_uri()
    with chromium(executable, width) as browser:
        browser.page.goto(address)
        browser.page.wait_for_load_state("networkidle")
        length = browser.page.evaluate("document.documentElement.scrollHeight")
        whole = Image.new("RGB", (width, length), "white")
        for top in range(0, length, TALLEST):
            clip = {"x": 0, "y": top, "width": width, "height": min(TALLEST, length - top)}
            part = browser.page.screenshot(full_page=True, clip=clip)
            whole.paste(Image.open(io.BytesIO(part)), (0, top))
        picture.parent.mkdir(parents=True, exist_ok=True)
        whole.save(picture)
        return [asked for asked in browser.requests if asked != address and not asked.startswith("data:")]


@dataclass(frozen=True)
class Server:
    address: str  # "http://127.0.0.1:41234/"
    token: str

    def notebook(self, name: str) -> str:
        """The address of a notebook, alone on its page."""
        return f"{self.address}doc/tree/{name}?token={self.token}"


@contextmanager
def jupyterlab(folder: Path, scratch: Path, presents: Path | None = None) -> Iterator[Server]:
    """A JupyterLab on the notebooks of `folder`; its settings, state and log are in `scratch`.

    `presents` is the settings folder of a JupyterLab that presents, see mmlesson/teach/present/lab.py.
    Raises RuntimeError where it does not start.
    """
    settings = scratch / "settings" / "@jupyterlab"
    for name, values in {
        "notebook-extension/tracker": {"windowingMode": "none"},  # cells out of sight stay in the page
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},  # no question at the start
    }.items():
        (settings / name).parent.mkdir(parents=True, exist_ok=True)
        (settings / f"{name}.jupyterlab-settings").write_text(json.dumps(values))
    defaults = scratch / "config" / "labconfig" / "default_setting_overrides.json"  # as `mmlesson lab` has them
    defaults.parent.mkdir(parents=True)
    defaults.write_text(json.dumps(PRESENTS if presents else DEFAULTS))
    with socket.socket() as any_socket:
        any_socket.bind(("127.0.0.1", 0))
        port = any_socket.getsockname()[1]
    token = secrets.token_hex(16)
    environment = {
        **os.environ,
        "JUPYTER_TOKEN": token,
        "JUPYTER_CONFIG_DIR": str(scratch / "config"),
        "JUPYTER_DATA_DIR": str(scratch / "data"),
        "JUPYTER_RUNTIME_DIR": str(scratch / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(scratch / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(scratch / "workspaces"),
        "IPYTHONDIR": str(scratch / "ipython"),
        "JUPYTER_PATH": str(presents or scratch / "data"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={folder}",
    ]
    command += [
        "--LabApp.extension_manager=readonly",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    log = scratch / "server.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
    try:
        server = Server(f"http://127.0.0.1:{port}/", token)
        if not _answers(server, process, time.monotonic() + HANG):
            raise RuntimeError(f"JupyterLab did not start within {HANG} s:\n{log.read_text(errors='replace')[-3000:]}")
        yield server
    finally:
        process.terminate()  # the server ends its kernels first
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(server: Server, process: subprocess.Popen, deadline: float) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with direct.open(f"{server.address}api/status?token={server.token}", timeout=5):
                return True
        except OSError:
            time.sleep(0.1)
    return False


# ------------------------------------------------------------------------------------ a notebook on its page


def write_notebook(path: Path, cells) -> Path:
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def run_all(browser: Browser, shown: Locator) -> None:
    """Run every cell from the menu until `shown` is there; AssertionError with the words of a cell that failed."""
    page = browser.page
    prompt = page.locator(".jp-CodeCell .jp-InputPrompt").first
    expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle")
    deadline = time.monotonic() + HANG
    while time.monotonic() < deadline:
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        try:
            expect(prompt).not_to_have_text("[ ]:", timeout=10_000)
            break
        except AssertionError:  # while the page still connects to its kernel, it forgets what it was asked to run
            continue
    failed = page.locator(ERROR)
    try:
        expect(shown.or_(failed).first).to_be_visible()
        assert failed.count() == 0, failed.first.inner_text()
    except AssertionError:
        browser.screenshot("notebook-failed")
        raise


def output(browser: Browser, cell: int) -> Locator:
    """What stands under a code cell; cells are counted from 0."""
    return browser.page.locator(".jp-CodeCell").nth(cell).locator(".jp-OutputArea")


def picture(box: Locator) -> Locator:
    return box.locator("img")


def middle(place: Locator) -> float:
    """The middle of something on the page, in pixels from the left."""
    box = place.bounding_box()
    return box["x"] + box["width"] / 2


def choose(browser: Browser, box: Locator, file: Path) -> None:
    """Choose a file in the browser's dialogue."""
    with browser.page.expect_file_chooser() as chooser:
        box.get_by_role("button", name="Choose a picture").click()
    assert not chooser.value.is_multiple()
    chooser.value.set_files(file)


def write(field: Locator, text: str) -> None:
    """Type with keys, as people do: a field that a script fills does not always tell its page that it changed."""
    field.click()
    field.press("ControlOrMeta+a")
    field.press("Delete")
    field.press_sequentially(text)
