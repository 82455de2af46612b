"""The lessons run from start to end under another CLIP: random weights, another size, no list of words, no network.

It is the learner's edition that runs here, with its stubs, and tells at its end which exercises are open.

Random weights make every claim about pictures false. So a cell that asserts one, and does not ask first whether the
CLIP is the course's own, fails here. Exercises that look at a CLIP are answered too, with the lesson's own solutions.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import ipywidgets
import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from mmlesson import ImageIndex, load_clip, world
from mmlesson.teach import editions, widgets
from mmlesson.teach.exercises.checking import EXERCISES

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
LESSONS = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))

SIZES = "sizes, exact_ms, approximate_ms, recalls = [1_000, 4_000, 10_000]"

# Small pictures and short paintings meet everything that large and long ones meet: a CLIP of random weights finds
# nothing in either. Each of these has to be found in its lesson, once.
SHORTER = {
    "01_clip": [("steps = 300", "steps = 220")],  # of a training that no CLIP has a part in
    "02_image_search": [
        ("pictures = [scene.render(256) for", "pictures = [scene.render(96) for"),
        ("relation=relation, seed=7).render(256)", "relation=relation, seed=7).render(96)"),
        ("sizes, exact_ms, approximate_ms, recalls = [1_000, 10_000, 100_000]", SIZES),
        ('find_spec("ray") is None', 'find_spec("a package that is not installed") is None'),  # the stored run
    ],
    "03_vqgan_clip": [
        ('"steps": 28, "cutouts": 2, "sketches": 3', '"steps": 9, "cutouts": 2, "sketches": 1'),
        ("steps=40, sketches=3, seed=10", "steps=40, sketches=1, seed=10"),
        ("prior=None, steps=40,", "prior=None, steps=9,"),
    ],
    "04_dalle": [("seed=1, steps=28, sketches=3", "seed=1, steps=3, sketches=1")],
}
LOOK_AT_A_CLIP = (
    "1.1",
    "1.6",
    "1.9",
    "2.2",
    "2.8",
)  # the exercises whose verdict names what the CLIP in use makes of an answer
VERDICTS = {
    "1.1": r"Exercise 1\.1: right\. .*",
    "1.6": r"Exercise 1\.6: (right\. .*|not yet\. It is \d+% sure of .*The exercise was made with pocket-clip\..*)",
    "1.9": r"Exercise 1\.9: (right|not yet)\. .*",  # whether a failure of the pocket CLIP is one of this CLIP too
    "2.2": r"Exercise 2\.2: right\. .*",
    "2.8": r"Exercise 2\.8: (right|not yet)\. .*",
}
RUN = """
import sys
from pathlib import Path
from mmlesson.teach.lessons import run_lessons
[run] = run_lessons(Path(sys.argv[1]), write_back=True, export=False)
print(run)
"""


def solution_of(notebook: NotebookNode, number: str) -> str:
    [source] = [
        re.search(r"```python\n(.*)\n```", cell.source, re.DOTALL)[1]
        for cell in notebook.cells
        if "solution" in cell.metadata.get("tags", []) and f'check("{number}"' in cell.source
    ]
    return source


def answered(notebook: NotebookNode, lesson: NotebookNode) -> None:
    """Adds a cell behind each exercise that looks at a CLIP: it prints the verdict on the solution of the lesson."""
    for number in LOOK_AT_A_CLIP:
        places = [
            place
            for place, cell in enumerate(notebook.cells)
            if "exercise" in cell.metadata.get("tags", []) and f'check("{number}"' in cell.source
        ]
        for place in places:
            source = re.sub(r"^check\(", "verdict = check(", solution_of(lesson, number), flags=re.MULTILINE)
            cell = (
                f"tried = dict(globals())  # it leaves nothing behind\nexec({source!r}, tried)\nprint(tried['verdict'])"
            )
            notebook.cells.insert(place + 1, new_code_cell(cell, metadata={"tags": [f"answer {number}"]}))


def printed(cell: NotebookNode) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


@pytest.mark.parametrize("lesson", LESSONS)
def test_lesson_runs_again_under_another_clip(lesson, other_folder, tmp_path, without_network, record_property):
    whole = nbformat.read(NOTEBOOKS / f"{lesson}.ipynb", as_version=4)
    notebook = editions.student(whole)
    for long, short in SHORTER.get(lesson, ()):
        [cell] = [cell for cell in notebook.cells if cell.cell_type == "code" and long in cell.source]
        cell.source = cell.source.replace(long, short)
    answered(notebook, whole)
    path = tmp_path / f"{lesson}.ipynb"
    nbformat.write(notebook, path)

    clip = f"local-dir:{other_folder}"
    before = os.times()
    run = subprocess.run(
        without_network([sys.executable, "-c", RUN, tmp_path]),
        env={**os.environ, "MMLESSON_CLIP": clip, "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
    )
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    record_property("note", f"{lesson} under another CLIP: {processor:.0f} s of the processor")
    assert run.returncode == 0, run.stdout + run.stderr

    executed = nbformat.read(path, as_version=4)
    code = [cell for cell in executed.cells if cell.cell_type == "code" and cell.source.strip()]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    first = next(cell for cell in code if "load_clip()" in cell.source)
    assert other_folder.name in printed(first), "the lesson does not say which CLIP is in use"
    assert re.search(r"\b48\b", printed(first)) or lesson == "04_dalle", "nor how long its vectors are"
    assert "drawings of the pocket world" not in printed(first) and "never seen a photograph" not in printed(first)
    assert re.search("not known|unknown number|no list of its training words|Nobody listed", printed(first))
    said = {cell.metadata.tags[0].split()[1]: printed(cell) for cell in code if cell.source.startswith("tried = ")}
    for number, verdict in said.items():
        assert re.fullmatch(VERDICTS[number], verdict.strip(), re.DOTALL), verdict
    assert set(said) == {number for number in LOOK_AT_A_CLIP if number[0] == str(int(lesson[:2]))}
    assert not re.search(r"\bnan\b", " ".join(map(printed, code))), "a share of nothing"
    told = code[-1].outputs[0].data["text/plain"]
    number = int(lesson[:2])
    assert told.startswith(f"Lesson {number}: ")
    still_open = {each for each in EXERCISES if each.startswith(f"{number}.")} - set(LOOK_AT_A_CLIP)
    assert still_open <= set(re.findall(r"^(\d\.\d+) +○ open", told, re.MULTILINE))


def descendants(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from descendants(child)


def test_the_widgets_answer_under_another_clip(other_folder, tmp_path):
    """None of them needs a list of words. (`own_picture` waits for a picture; painter and sampler work in threads.)"""
    clip = load_clip(f"local-dir:{other_folder}", device="cpu")
    cat = world.scene("cat").render(96)
    index = ImageIndex.build(
        [cat, world.scene("dog").render(96)], clip, path=tmp_path / "index", captions=["cat", "dog"]
    )
    boxes = [
        widgets.temperature(clip, cat, ["a cat", "a dog"]),
        widgets.compose(clip),
        widgets.search_box(index, text="an unheard-of cat", k=2),
    ]
    for box in boxes:
        for widget in descendants(box):
            if isinstance(widget, ipywidgets.Button) and not widget.disabled:
                widget.click()
        shown = " ".join(widget.value for widget in descendants(box) if isinstance(widget, ipywidgets.HTML))
        assert 'role="status"' in shown and 'data-kind="problem"' not in shown and "never met" not in shown


def test_these_exercises_look_at_a_clip():
    """And no other does: a new one belongs into LOOK_AT_A_CLIP."""
    looking = [
        number
        for number, each in EXERCISES.items()
        if {"the_clip", "cosines", "says_the_model"} & set(each.judge.__code__.co_names)
    ]
    assert sorted(looking) == sorted(LOOK_AT_A_CLIP)
