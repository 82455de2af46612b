"""The two editions of the lessons: the same cells as the lesson, with the solutions taken out or made to run.

Both are executed from start to end with the network cut off: the teacher's in test_notebooks, with every solution
right; the learner's in test_lessons_other_clip, with all stubs untouched.
"""

import ast
import copy
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell

from mmlesson import cli, gates
from mmlesson.teach import editions
from mmlesson.teach.exercises.checking import EXERCISES

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.fixture(scope="module", params=LESSONS, ids=lambda path: path.stem)
def lesson(request):
    return nbformat.read(request.param, as_version=4)


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def solutions(notebook) -> dict[str, str]:
    """Number of an exercise → its solution, as the lesson folds it."""
    folded = (cell.source for cell in notebook.cells if "solution" in tags(cell))
    return {
        re.search(r"exercise (\d\.\d+)", text)[1]: re.search(r"```python\n(.*)\n```", text, re.DOTALL)[1]
        for text in folded
    }


def test_the_learners_edition_has_the_code_of_the_lesson_and_tells_what_is_open(lesson):
    edition = editions.student(lesson)
    *same, last = code(edition)
    assert same == code(lesson), "sources, outputs, ids and tags"
    assert last.source.splitlines()[-1].startswith("progress(")
    told = last.outputs[0].data["text/plain"]
    assert all(f"\n{number}" in told for number in solutions(lesson)) and told.count("○ open") == len(solutions(lesson))
    assert [cell.execution_count for cell in code(edition) if cell.source][-1] == len(code(edition))
    nbformat.validate(edition)


def test_the_learners_edition_holds_no_solution(lesson):
    text = nbformat.writes(editions.student(lesson))
    for number, solution in solutions(lesson).items():
        lines = [line.strip() for line in solution.splitlines() if len(line.strip()) > 25]
        assert f"The solution of exercise {number} is in the teacher's edition." in text
        inside = [
            line for line in lines if line.replace('"', '\\"') in text and not line.startswith(("def ", "check("))
        ]
        # a line that the lesson itself has shown
        taught = "\n".join(cell.source for cell in lesson.cells if "solution" not in tags(cell))
        assert [line for line in inside if line not in taught] == []
    assert "<details>" not in "".join(cell.source for cell in editions.student(lesson).cells)
    assert not re.search(r"solution[^.]{0,20}\sbelow", text), "it promises a solution that is not there"
    assert "two hints" in editions.student(lesson).cells[0].source


def test_the_teachers_edition_runs_each_solution_below_its_stub(lesson):
    edition = editions.teacher(lesson)
    assert [cell for cell in code(edition) if cell.id in {each.id for each in code(lesson)}] == code(lesson)
    for number, solution in solutions(lesson).items():
        [place] = [
            place
            for place, cell in enumerate(edition.cells)
            if "solution" in tags(cell) and cell.source.startswith(f"# Solution of exercise {number}\n")
        ]
        shown = edition.cells[place]
        assert shown.cell_type == "code" and shown.source.endswith(solution) and shown.outputs == []
        assert "exercise" in tags(edition.cells[place - 1]) and f'check("{number}"' in edition.cells[place - 1].source
    nbformat.validate(edition)


def test_no_solution_takes_a_name_that_a_later_cell_needs(lesson):
    """A learner may put a solution into the stub's cell and go on: later cells read what the lesson gave them."""
    order = [cell for cell in editions.teacher(lesson).cells if cell.cell_type == "code"]
    for place, cell in enumerate(order):
        if "solution" not in tags(cell):
            continue
        taken = names(cell.source, ast.Store)
        exercise = names(order[place - 1].source, ast.Store)
        for later in order[place + 1 :]:
            used_first = names(later.source, ast.Load) - names(later.source, ast.Store)
            stolen = taken & used_first - exercise
            known = {"math", "torch", "F", "np"}
            assert stolen <= known, f"{later.id} reads {stolen}, which a solution has set"
            taken -= names(later.source, ast.Store)


def names(source: str, context) -> set[str]:
    """Names that the statements of a cell read or set at its top level, imports included; functions keep their own."""
    found = set()
    todo = list(ast.parse(source).body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            if isinstance(node, ast.FunctionDef) and context is ast.Store:
                found.add(node.name)
            inner = {
                each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)
            }
            own = {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
            own |= {each.arg for each in ast.walk(node) if isinstance(each, ast.arg)}
            found |= inner - own if context is ast.Load else set()
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)) and context is ast.Store:
            found |= {(each.asname or each.name).split(".")[0] for each in node.names}
        if isinstance(node, ast.Name) and isinstance(node.ctx, context):
            found.add(node.id)
        todo += ast.iter_child_nodes(node)
    return found


def test_every_exercise_has_its_solution_in_one_lesson():
    found = [number for path in LESSONS for number in solutions(nbformat.read(path, as_version=4))]
    assert sorted(found) == sorted(EXERCISES)


def test_the_lesson_stays_as_it_is(lesson):
    before = copy.deepcopy(lesson)
    editions.student(lesson)
    editions.teacher(lesson)
    assert lesson == before


def test_a_solution_that_is_marked_in_another_way_is_a_sentence(lesson):
    odd = copy.deepcopy(lesson)
    odd.cells.insert(1, new_markdown_cell("The answer is 42.", metadata={"tags": ["solution"]}))
    for edition in (editions.student, editions.teacher):
        with pytest.raises(gates.AssetError, match="is no folded Python of one exercise"):
            edition(odd)


def test_the_command_writes_both(tmp_path, capsys):
    assert cli.main(["student", "--out", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 * len(LESSONS)
    for name in ("student", "teacher"):
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == [path.name for path in LESSONS]
    first = (tmp_path / "student" / LESSONS[0].name).read_bytes()
    assert cli.main(["student", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "student" / LESSONS[0].name).read_bytes() == first


def test_no_lessons_are_a_sentence(tmp_path):
    with pytest.raises(gates.AssetError, match="There are no notebooks"):
        list(editions.write(tmp_path, tmp_path / "out"))
