"""What Sphinx is told beside its settings. It loads this file by name, and calls `setup`."""

from __future__ import annotations

from mmlesson.teach.lessons import mathml
from mmlesson.teach.site import reference


def setup(app) -> dict:
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.connect("autodoc-process-docstring", _docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline(writer, node) -> None:
    from docutils.nodes import SkipNode

    writer.body.append(mathml(node.astext(), "inline"))
    raise SkipNode


def _block(writer, node) -> None:
    from docutils.nodes import SkipNode

    writer.body.append(f'<div class="math">{mathml(node.astext(), "block")}</div>')
    raise SkipNode


def _docstring(app, kind: str, name: str, what: object, options, lines: list[str]) -> None:
    lines[:] = reference.rewritten(lines, what)
