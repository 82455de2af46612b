"""A notebook as a page in Markdown, with its stored outputs."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from ..lessons import WIDGET_SENTENCE, embed_picture
from ..slides.build import read

if TYPE_CHECKING:
    from nbformat import NotebookNode

NO_KERNEL = "This cell shows interactive controls. They need a kernel: open the lesson in JupyterLab and run the cell."
PICTURE = re.compile(r"data:image/([a-z+]+);base64,([A-Za-z0-9+/=\s]+)")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def page_of(path: Path, pictures: Path, marked: Collection[str] = ()) -> str:
    """The Markdown (MyST) of a notebook.

    Its pictures are written into the folder `pictures`, which pages find at `../_static/pictures`. The cells whose ids
    are in `marked` get anchors of the same names. Raises AssetError where the notebook was not executed.
    """
    blocks = []
    for cell in read(path).cells:
        if cell.get("id") in marked:
            blocks.append(f"({cell.id})=")
        if cell.cell_type == "markdown":
            blocks.append(re.sub(r"(\]\([^):#?]+)\.ipynb(?=[)#])", r"\1.md", cell.source))
        elif cell.cell_type == "code" and cell.source.strip():
            blocks.append(fenced("{code-block} ipython3", cell.source))
            blocks += [block for output in cell.outputs if (block := _output(output, pictures))]
    return "\n\n".join(blocks) + "\n"


def _output(output: NotebookNode, pictures: Path) -> str:
    embed_picture(output)
    data = output.get("data", {})
    if "text/html" in data:
        shown = PICTURE.sub(lambda found: _as_file(found, pictures), data["text/html"])
        return fenced("{raw} html", f'<div class="output">{shown}</div>')
    if output.output_type == "error":
        text = "\n".join(output.traceback)
    elif output.output_type == "stream":
        text = output.text
    else:
        text = data.get("text/plain", "")
    text = ANSI.sub("", text).rstrip()
    if text == WIDGET_SENTENCE:
        return fenced("{note}", NO_KERNEL)
    return fenced("{code-block} text\n:class: output", text) if text.strip() else ""


def _as_file(found: re.Match, pictures: Path) -> str:
    """Write a picture that stands in a page into a file; returns its address."""
    data = base64.b64decode(found[2])
    kind = found[1].split("+")[0]
    name = f"{hashlib.sha256(data).hexdigest()[:16]}.{kind}"
    (pictures / name).write_bytes(data)
    return f"../_static/pictures/{name}"


def fenced(head: str, text: str) -> str:
    """A block between fences that are longer than any in the text."""
    longest = max(map(len, re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{head}\n{text}\n{fence}"
