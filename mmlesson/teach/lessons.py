"""`mmlesson lessons`: execute the notebooks without a browser and write each as a page of its own.

A page asks the network for nothing: pictures are inside it, formulas are MathML (which browsers draw
themselves), and it holds no script at all. Execution is nbclient's, the page is nbconvert's.

Conventions that the notebooks keep, so that a page says everything that the notebook does:
- The figures of the course are HTML with their text alternative, which every program shows that reads notebooks. A
  picture of another library has it in the metadata `{"image/png": {"alt": "…"}}` of its output, as
  `IPython.display.Image(…, alt=…)` and `display(figure, metadata={"image/png": {"alt": "…"}})` write it; a page
  shows it, and plain `jupyter nbconvert` does not.
- A widget has a static figure beside it; in a page and in a committed notebook a sentence stands for it.
"""

from __future__ import annotations

import base64
import contextlib
import html
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mmlesson import gates

if TYPE_CHECKING:
    import psutil
    from nbformat import NotebookNode

LONGEST_CELL = 1800  # seconds after which a cell hangs rather than works
WIDGET = "application/vnd.jupyter.widget-view+json"
WIDGET_SENTENCE = "Interactive controls: run this cell in JupyterLab to use them."
PICTURES = ("image/svg+xml", "image/png", "image/jpeg", "image/gif")  # the first that an output has is shown
KERNELSPEC = {"name": "python3", "display_name": "Python 3", "language": "python"}
KEPT_IN_CELLS = ("tags", "slideshow", "jupyter")  # the rest of a cell's metadata is a program's memory of its last run

STYLE = """
main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
.jp-RenderedHTMLCommon img, .jp-RenderedImage img { max-width: 100%; height: auto; }
:root { --jp-mirror-editor-operator-color: #7a00cc; --jp-mirror-editor-number-color: #006400;
  --jp-mirror-editor-keyword-color: #006400; --jp-mirror-editor-comment-color: #2f6464;
  --jp-mirror-editor-string-color: #a31515; --jp-mirror-editor-error-color: #b00000;
  --jp-cell-prompt-not-active-opacity: 1; --jp-cell-prompt-not-active-font-color: #595959;
  --jp-cell-inprompt-font-color: #2b5a9b; --jp-cell-outprompt-font-color: #a8431a; --jp-ui-font-color3: #595959; }
.jp-InputPrompt, .jp-OutputPrompt { opacity: 1; }
.jp-RenderedHTMLCommon a:link, .jp-RenderedHTMLCommon a:visited { text-decoration: underline; }
.jp-RenderedHTMLCommon a.anchor-link:link { text-decoration: none; }
.jp-CodeMirrorEditor .highlight pre, .jp-RenderedText pre, .jp-RenderedHTMLCommon pre {
  white-space: pre-wrap; overflow-wrap: anywhere; word-break: normal; }
.jp-RenderedHTMLCommon details pre, .jp-RenderedHTMLCommon .highlight { margin-bottom: 1em; }
math[display="block"] { margin: 0.8em 0; overflow-x: auto; overflow-y: hidden; }
math mtd[columnalign="right"] { text-align: right; }
math mtd[columnalign="left"] { text-align: left; }
"""


class LessonError(gates.AssetError):
    """One or more lessons failed; the message names each notebook, the cell and its error."""


@dataclass(frozen=True)
class LessonRun:
    """One lesson, executed from a fresh kernel to its end."""

    name: str  # "01_clip"
    cells: int  # code cells executed
    seconds: float  # from the start of the kernel to the end of the last cell
    peak_memory_gb: float  # of the kernel and its children together, in 10**9 bytes
    html: Path | None  # the page, None where none was asked for
    cell_seconds: Mapping[int, float] = field(default_factory=dict)  # of each code cell, by the number of In [n]

    def __str__(self) -> str:
        page = f", {self.html}" if self.html else ""
        return f"{self.name}: {self.cells} cells, {self.seconds:.0f} s, {self.peak_memory_gb:.1f} GB at its peak{page}"


def run_lessons(
    notebooks: str | Path,
    out: str | Path = "build/lessons",
    only: str | Sequence[str] | None = None,
    write_back: bool = False,
    export: bool = True,
) -> Iterator[LessonRun]:
    """Yields a LessonRun for each notebook of a folder, in the order of their names, as soon as it is done.

    Each notebook runs in a kernel of its own, with the folder of the notebooks as the working directory. When all of
    its cells ran, its page is written to `out` (unless `export` is False). `only` names the lessons to run
    ("01_clip"). `write_back` keeps the outputs in the notebook itself, with metadata that is the same on every
    machine: so a lesson is committed.

    A lesson that fails does not stop the others. After the last lesson, LessonError says what failed in which cell.
    A failed lesson has no page (an older one is removed) and is not written back. Raises AssetError where there are
    no notebooks, or where `only` names one that is not there.
    """
    failures = []
    for path in choose(Path(notebooks), only):
        page = Path(out) / f"{path.stem}.html" if export else None
        try:
            yield _run(path, page, write_back)
        except LessonError as error:
            if page is not None:
                page.unlink(missing_ok=True)
            failures.append(str(error))
    if failures:
        count = "A lesson failed" if len(failures) == 1 else f"{len(failures)} lessons failed"
        raise LessonError("\n".join([f"{count}.", *failures]))


def choose(folder: Path, only: str | Sequence[str] | None) -> list[Path]:
    """The notebooks of a folder, in the order of their names; `only` names some. Raises AssetError, see run_lessons."""
    found = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    if not found:
        raise gates.AssetError(f"There are no notebooks in {folder}.")
    if only is None:
        return list(found.values())
    asked = [only] if isinstance(only, str) else list(only)
    asked = [name.removesuffix(".ipynb") for name in asked]
    for name in asked:
        if name not in found:
            raise gates.AssetError(f"There is no lesson {name!r}; there is {', '.join(found)}.")
    return [path for name, path in found.items() if name in asked]


def as_file(notebook: NotebookNode) -> bytes:
    """A notebook as the bytes of its file, which end with one line break, whatever version of nbformat writes them."""
    import nbformat

    return (nbformat.writes(notebook).rstrip("\n") + "\n").encode()


def _run(path: Path, page: Path | None, write_back: bool) -> LessonRun:
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises whatever its parsers raise
        raise LessonError(f"{path.stem}: {path} is not a notebook that can be read ({error}).") from error

    start = time.perf_counter()
    cell_seconds: dict[int, float] = {}
    peak = _execute(notebook, path, cell_seconds)
    seconds = time.perf_counter() - start

    tidy(notebook)
    if page is not None:
        text = to_html(notebook, path)
        gates.write_result(page, text.encode())
    if write_back:
        nbformat.validate(notebook)
        gates.write_atomically(path, as_file(notebook))
    cells = sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in notebook.cells)
    return LessonRun(path.stem, cells, seconds, peak, page, cell_seconds)


# ------------------------------------------------------------------------------------------ execution


def _execute(notebook: NotebookNode, path: Path, cell_seconds: dict[int, float]) -> float:
    """Run every cell in a fresh kernel, outputs into `notebook`; returns the peak memory in GB.

    The seconds of each code cell are written into `cell_seconds`, by the number of In [n].
    Raises LessonError for a cell that fails (unless it is tagged `raises-exception`).
    """
    import subprocess

    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    folder = str(path.parent.resolve())
    client = NotebookClient(
        notebook,
        kernel_name=KERNELSPEC["name"],
        resources={"metadata": {"path": folder}},
        timeout=LONGEST_CELL,
        coalesce_streams=True,
        store_widget_state=False,
        record_timing=False,
    )
    client.reset_execution_trackers()
    # not client.execute(): it takes Ctrl-C to mean "kill the kernel and say that it died". What cells write to stderr
    # is in their outputs; the kernel's own says, at every start, that it listens on this machine unencrypted.
    with client.setup_kernel(cwd=folder, stderr=subprocess.DEVNULL), PeakMemory(client.km.provisioner.pid) as memory:
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
            count = client.code_cells_executed + 1
            start = time.perf_counter()
            try:
                client.execute_cell(cell, index, execution_count=count)
                if client.code_cells_executed == count:  # neither prose nor empty
                    cell_seconds[count] = time.perf_counter() - start
            except CellExecutionError as error:
                said, cause = f"{error.ename}: {_plain(error.evalue)}", error
            except CellTimeoutError as error:
                said, cause = f"still running after {LONGEST_CELL} seconds", error
            except DeadKernelError as error:
                peak = f"{memory.gb:.1f} GB until then"
                said, cause = f"the kernel died, as it does when memory runs out ({peak})", error
            else:
                continue
            where = f"{path.stem}, cell {index + 1} of {len(notebook.cells)} (In [{count}])"
            raise LessonError(f"{where}: {said}\n{_indented(cell.source)}") from cause
    return memory.gb


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _indented(source: str) -> str:
    return "\n".join(f"    {line}" for line in source.splitlines())


class PeakMemory:
    """A context that watches a process and its children; `gb` is the most that they held together, in 10**9 bytes.

    It looks ten times a second, so a shorter peak can escape it. Pages that processes share count once, on Linux; other
    systems do not tell which these are. A cluster that a cell starts does not count: it stands for other machines.
    """

    def __init__(self, pid: int, every: float = 0.1):
        self.pid = pid
        self.every = every
        self.gb = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.gb = max(self.gb, self._now())
            if self._done.wait(self.every):
                return

    def _now(self) -> float:
        import psutil

        try:
            root = psutil.Process(self.pid)
            family = [root, *(child for child in root.children(recursive=True) if not _is_of_ray(child))]
        except psutil.Error:
            return 0.0
        held = _sum_of(family, lambda process: process.memory_info().rss)
        if held / 1e9 > self.gb and len(family) > 1:  # this takes longer
            held = _sum_of(family, _share)
        return held / 1e9


def _is_of_ray(process: psutil.Process) -> bool:
    """Whether a process is a worker of Ray (`ray::…`) or a program of its package."""
    import psutil

    try:
        words = process.cmdline()[:4]
    except psutil.Error:
        return False
    programs = tuple(f"{os.sep}ray{os.sep}{part}{os.sep}" for part in ("core", "dashboard", "autoscaler", "_private"))
    return any(word.startswith("ray::") or any(program in word for program in programs) for word in words)


def _sum_of(processes: Iterable[psutil.Process], memory: Callable[[psutil.Process], int]) -> int:
    import psutil

    held = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):  # it ended in between
            held += memory(process)
    return held


def _share(process: psutil.Process) -> int:
    """Bytes of resident memory; of a page that n processes share, the nth part."""
    full = process.memory_full_info()
    return getattr(full, "pss", full.rss)


# ------------------------------------------------------------------------------------------ notebooks


def tidy(notebook: NotebookNode) -> None:
    """Reduce an executed notebook, in place, to what is the same whoever ran it, wherever and whenever.

    Metadata keeps the kernel's name, the language, a title and the cells' tags and slide types; widgets,
    whose state lives and dies with a kernel, leave a sentence.
    """
    title = notebook.metadata.get("title")
    notebook.metadata = {
        "kernelspec": dict(KERNELSPEC),
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
        **({"title": title} if title else {}),
    }
    for cell in notebook.cells:
        cell.metadata = {key: cell.metadata[key] for key in KEPT_IN_CELLS if cell.metadata.get(key)}
        if cell.cell_type != "code":
            continue
        for output in cell.outputs:
            if WIDGET in output.get("data", {}):
                output.data = {"text/plain": WIDGET_SENTENCE}
                output.metadata = {}
        # a progress bar that wiped itself away leaves blanks behind
        cell.outputs = [output for output in cell.outputs if output.output_type != "stream" or output.text.strip()]


# ---------------------------------------------------------------------------------------------- pages


def to_html(notebook: NotebookNode, path: Path) -> str:
    """The page of an executed notebook: one HTML file that requests nothing from elsewhere.

    `path` is where the notebook lies: pictures that its text names are found from there. A picture that is
    on the network only (a badge) is replaced by its text alternative; links to other lessons lead to their pages.
    """
    import copy

    from bs4 import BeautifulSoup

    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            embed_picture(output)
    title = notebook.metadata.get("title") or _title(notebook) or path.stem
    resources = {"metadata": {"name": title, "path": str(path.parent.resolve())}}
    text, _ = exporter().from_notebook_node(notebook, resources)

    page = BeautifulSoup(text, "html.parser")
    for script in page("script"):  # MathJax, require.js and mermaid, all from elsewhere, with nothing left to do
        script.decompose()
    for element in page(src=True):
        if not element["src"].startswith("data:"):
            element.replace_with(element.get("alt") or element.get("title") or "")
    for link in page("a", href=re.compile(r"^[^:#?]+\.ipynb(#.*)?$")):
        link["href"] = link["href"].replace(".ipynb", ".html", 1)
    style = page.new_tag("style")
    style.string = STYLE
    page.head.append(style)
    return str(page)


def _title(notebook: NotebookNode) -> str:
    """The words of the first heading."""
    for cell in notebook.cells:
        heading = cell.cell_type == "markdown" and re.search(r"^#\s+(.+)$", cell.source, re.MULTILINE)
        if heading:
            return re.sub(r"[*_`]", "", heading[1]).strip()
    return ""


def embed_picture(output: NotebookNode) -> None:
    """Show an output's picture as HTML with its text alternative, as the course's own figures do it themselves."""
    data = output.get("data", {})
    kind = next((kind for kind in PICTURES if kind in data), None)
    if kind is None or "text/html" in data:
        return
    picture = data[kind]
    if kind == "image/svg+xml":
        picture = base64.b64encode(picture.encode()).decode()
    shown = output.metadata.get(kind, {})
    attributes = {"src": f"data:{kind};base64,{''.join(picture.split())}", "alt": shown.get("alt", "")}
    attributes |= {side: str(shown[side]) for side in ("width", "height") if side in shown}
    written = " ".join(f'{name}="{html.escape(value)}"' for name, value in attributes.items())
    output.data = {"text/html": f"<img {written}>"}


def exporter():
    """nbconvert's exporter for the look of JupyterLab, with formulas as MathML."""
    from jinja2 import pass_context
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def inline_math(self, body: str) -> str:
            return mathml(body, "inline")

        def block_math(self, body: str) -> str:
            return mathml(body, "block")

        def _html_embed_images(self, html: str) -> str:
            # nbconvert parses each piece of HTML alone, and closes what only a later piece closes: <details>
            return super()._html_embed_images(html) if "<img" in html else html

        def latex_environment(self, name: str, body: str) -> str:
            return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")

    class Exporter(HTMLExporter):
        @pass_context
        def markdown2html(self, context, source):
            path = context.get("resources", {}).get("metadata", {}).get("path", "")
            attachments = context.get("cell", {}).get("attachments", {})
            renderer = Renderer(
                escape=False, attachments=attachments, embed_images=True, path=path, exclude_anchor_links=True
            )
            return MarkdownWithMath(renderer=renderer).render(source)

    return Exporter(template_name="lab")


def mathml(tex: str, display: str) -> str:
    """A formula as MathML; what cannot be read as one stands as it was written."""
    from latex2mathml.converter import convert

    # numberless alignment is the one kind that the converter knows
    tex = re.sub(r"\\(begin|end)\{(aligned|align|split|gathered)\}", r"\\\1{align*}", tex.strip())
    try:
        return convert(tex, display=display)
    except Exception:  # the converter raises a dozen kinds, none of which may cost a reader the page
        return f"<code>{html.escape(tex)}</code>"
