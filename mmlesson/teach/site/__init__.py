"""`mmlesson site`: the course as pages that need neither a kernel nor a network, to read, to search and to print.

Sphinx writes the pages in the theme Furo, and MyST reads their Markdown. Nothing is executed: the pages of the lessons
show the outputs that are stored in the notebooks, and fold the solutions.

    lessons.py     a notebook becomes a page; its pictures become files
    reference.py   what the package offers, from its docstrings
    glossary.py    the terms of the field, each with the place where a reader meets it first
    build.py       all pages together, and Sphinx's run
    extension.py   what Sphinx is told: formulas as MathML, and how the course's docstrings are read
    static/        the course's own styles, and a script that lets the keyboard scroll wide tables
"""

from .build import Site, run_site

__all__ = ["Site", "run_site"]
