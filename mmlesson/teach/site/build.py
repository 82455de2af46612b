"""All pages of the site: what Sphinx reads is written into a folder of its own, and what it makes goes to `out`."""

from __future__ import annotations

import io
import re
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mmlesson import gates
from mmlesson.models import assets

from ..lessons import choose
from . import glossary, lessons, reference

NEEDED = {"sphinx": "Sphinx", "furo": "Furo", "myst_parser": "MyST"}
LEFT_OUT = ("", ".map", ".inv")  # what Sphinx writes for programs and not for readers
PARAMETERS = re.compile(r'<dl>(\s*<dd><em class="sig-param.*?)</dl>', re.DOTALL)  # in a signature
DEFINITION = re.compile(r"<(/?)dd>")
STATIC = Path(__file__).parent / "static"

SETTINGS = {
    "project": "mmlesson",
    "html_title": "mmlesson",
    "extensions": ["myst_parser", "sphinx.ext.autodoc", "mmlesson.teach.site.extension"],
    "myst_enable_extensions": ["deflist", "dollarmath", "amsmath"],
    "html_math_renderer": "mathml",
    "autodoc_typehints": "signature",
    "autodoc_inherit_docstrings": False,
    "autodoc_preserve_defaults": True,
    "add_module_names": False,
    "python_maximum_signature_line_length": 80,
    "toc_object_entries_show_parents": "hide",
    "html_theme": "furo",
    "html_css_files": ["site.css"],
    "html_js_files": ["site.js"],
    "html_copy_source": False,
    "html_show_sourcelink": False,
    "html_show_copyright": False,
    "html_last_updated_fmt": None,
}

HOME = """# mmlesson

**Learn how networks join pictures and words, by running them.** Four lessons on CLIP, image search, VQGAN+CLIP and
DALL-E. These pages show the lessons as they ran, with all outputs. To change something and run it, open them in
JupyterLab: `make lab`.

The box at the side searches all pages, without a network.

```{{toctree}}
:caption: Lessons
:maxdepth: 2

{lessons}
```

```{{toctree}}
:caption: Look up
:maxdepth: 1

glossary
measured
api/index
genindex
```

```{{toctree}}
:caption: Models
:maxdepth: 1

{models}
```

## Licences

The code is under the MIT licence. The pictures are by [OpenMoji](https://openmoji.org), CC BY-SA 4.0, and are modified
here (cropped, scaled, mirrored, placed on backgrounds). Scenes in the lessons and the weights of the pocket models are
under CC BY-SA 4.0 too. The photographs in the lessons come with scikit-image, foolbox, scikit-learn and matplotlib,
each under its package's terms.
"""


@dataclass(frozen=True)
class Site:
    """The site as it was written."""

    index: Path  # the page to open first
    pages: int
    megabytes: float  # of all files together, in 10**6 bytes
    warnings: tuple[str, ...]  # what Sphinx complained of

    def __str__(self) -> str:
        return f"{self.index}: {self.pages} pages, {self.megabytes:.1f} MB"


def run_site(notebooks: str | Path, measured: str, out: str | Path = "build/site") -> Site:
    """Write the pages of the course into the folder `out`, where pages of the same names are replaced.

    `notebooks` is the folder of the lessons, `measured` the text of MEASURED.md. Nothing is executed, and nothing is
    fetched. Raises AssetError where a package for the site is missing, where a notebook is missing, cannot be read or
    was not executed, and where `out` cannot be written; ValueError where `out` is a file.
    """
    missing = [name for module, name in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise gates.AssetError(
            f"The site needs {', '.join(missing)}, which this environment lacks: "
            'install it with `pip install "mmlesson[site]"`.'
        )
    chosen = choose(Path(notebooks), None)
    place = gates.output_folder(out)
    with tempfile.TemporaryDirectory(prefix="mmlesson-site-", ignore_cleanup_errors=True) as scratch:
        source, made = Path(scratch, "source"), Path(scratch, "made")
        _write_sources(source, chosen, measured)
        warnings = _run_sphinx(source, made)
        files = [path for path in sorted(made.rglob("*")) if path.is_file() and path.suffix not in LEFT_OUT]
        for path in files:
            target = place / path.relative_to(made)
            target.parent.mkdir(parents=True, exist_ok=True)
            data = path.read_bytes()
            if path.suffix == ".html":
                data = repaired(data.decode()).encode()
            gates.write_result(target, data)
        size = sum(path.stat().st_size for path in files)
    pages = sum(path.suffix == ".html" for path in files)
    return Site(place / "index.html", pages, size / 1e6, warnings)


def repaired(page: str) -> str:
    """A page of Sphinx's as screen readers expect it: headings have a level, lists of definitions have terms."""
    page = page.replace('<p class="caption" role="heading">', '<p class="caption" role="heading" aria-level="2">')
    return PARAMETERS.sub(_as_parts, page)


def _as_parts(found: re.Match) -> str:
    return '<div class="parameters">' + DEFINITION.sub(r"<\1div>", found[1]) + "</div>"


def _write_sources(source: Path, chosen: list[Path], measured: str) -> None:
    pictures = source / "static" / "pictures"
    for folder in (pictures, source / "lessons", source / "models", source / "api"):
        folder.mkdir(parents=True)
    terms = glossary.entries(chosen)
    for path in chosen:
        marked = {entry.cell for entry in terms if entry.lesson == path.stem}
        (source / "lessons" / f"{path.stem}.md").write_text(lessons.page_of(path, pictures, marked), encoding="utf8")
    (source / "glossary.md").write_text(glossary.page(terms), encoding="utf8")
    (source / "measured.md").write_text(measured, encoding="utf8")
    for name, (title, module) in reference.MODULES.items():
        (source / "api" / f"{name}.rst").write_text(reference.page(title, module), encoding="utf8")
    (source / "api" / "index.md").write_text(reference.index(), encoding="utf8")
    cards = sorted((assets.data_dir() / "models").glob("*/README.md"))
    for card in cards:
        (source / "models" / f"{card.parent.name}.md").write_bytes(card.read_bytes())
    home = HOME.format(
        lessons="\n".join(f"lessons/{path.stem}" for path in chosen),
        models="\n".join(f"models/{card.parent.name}" for card in cards),
    )
    (source / "index.md").write_text(home, encoding="utf8")


def _run_sphinx(source: Path, made: Path) -> tuple[str, ...]:
    from sphinx.application import Sphinx

    complaints = io.StringIO()
    settings = SETTINGS | {"html_static_path": [str(source / "static"), str(STATIC)]}
    app = Sphinx(
        source, None, made, made.parent / "doctrees", "html", settings, status=None, warning=complaints, freshenv=True
    )
    app.build(force_all=True)
    return tuple(filter(None, complaints.getvalue().splitlines()))
