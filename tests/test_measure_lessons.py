"""The benchmark of the lessons: seconds, slowest cells and memory, from made-up runs and from a tiny lesson."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mmlesson.measure import lessons
from mmlesson.teach.lessons import LessonRun, run_lessons


def test_the_figures(capsys):
    runs = [
        LessonRun("01_clip", 3, 40.0, 1.5, None, {1: 0.5, 2: 30.0, 3: 1.0}),
        LessonRun("04_dalle", 1, 20.0, 1.0, None, {1: 2.5}),
    ]
    assert lessons.figures_of(runs) == {
        "01_clip_seconds": 40.0,
        "01_clip_slowest_cell": 2,
        "01_clip_slowest_cell_seconds": 30.0,
        "01_clip_peak_memory_gb": 1.5,
        "04_dalle_seconds": 20.0,
        "04_dalle_slowest_cell": 1,
        "04_dalle_slowest_cell_seconds": 2.5,
        "04_dalle_peak_memory_gb": 1.0,
        "all_lessons_seconds": 60.0,
    }
    assert capsys.readouterr().out.startswith("01_clip: 3 cells, 40 s, 1.5 GB at its peak\n")


def test_a_lesson_of_no_cells_has_no_slowest():
    assert lessons.figures_of([LessonRun("00_empty", 0, 1.0, 0.1, None)]) == {
        "00_empty_seconds": 1.0,
        "00_empty_peak_memory_gb": 0.1,
        "all_lessons_seconds": 1.0,
    }


def test_the_times_are_of_code_cells_by_their_numbers(tmp_path):
    cells = [
        new_markdown_cell("words"),
        new_code_cell("x = 1"),
        new_code_cell(""),
        new_code_cell("import time; time.sleep(1)"),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "try.ipynb")
    (run,) = run_lessons(tmp_path, export=False)
    assert list(run.cell_seconds) == [1, 2] and max(run.cell_seconds, key=run.cell_seconds.get) == 2
    assert run.cell_seconds[2] >= 1
