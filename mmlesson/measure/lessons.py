"""How long the lessons take, and how much memory: `mmlesson bench lessons`.

Every lesson runs in a fresh kernel, as `mmlesson lessons` runs it, but nothing is written. The tests have no limit in
seconds, because a learner's laptop or a busy machine may be slow; the times are judged here.
"""

from __future__ import annotations

from collections.abc import Iterable

from mmlesson import world
from mmlesson.measure.report import Report
from mmlesson.models import assets
from mmlesson.teach.lessons import LessonRun, run_lessons


def figures_of(runs: Iterable[LessonRun]) -> dict[str, float]:
    """The figures of "bench lessons" in bars.py: for each lesson its seconds, its slowest cell, its peak memory."""
    figures: dict[str, float] = {}
    total = 0.0
    for run in runs:
        print(run, flush=True)
        figures[f"{run.name}_seconds"] = run.seconds
        if run.cell_seconds:
            slowest = max(run.cell_seconds, key=run.cell_seconds.__getitem__)
            figures[f"{run.name}_slowest_cell"] = slowest
            figures[f"{run.name}_slowest_cell_seconds"] = run.cell_seconds[slowest]
        figures[f"{run.name}_peak_memory_gb"] = run.peak_memory_gb
        total += run.seconds
    return figures | {"all_lessons_seconds": total}


def report(options) -> Report:
    """`mmlesson bench lessons`. Raises LessonError where a cell fails."""
    world.sprite("cat")  # the sprites are rendered once on a machine: no lesson is charged for that
    figures = figures_of(run_lessons(assets.notebooks_dir(), export=False))
    print()
    return Report("bench lessons", "The lessons, each in a fresh kernel", figures)
