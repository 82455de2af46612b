"""Long work in a thread: how often it is looked at, in a process that exits, and in a kernel."""

import subprocess
import sys
import textwrap

import nbclient
import nbformat
import pytest
from widget_tools import HANG

from mmlesson.teach.widgets import work


class Counted(work.LongWork):
    """A work of steps that are numbers. Its clock stands still but for what a step and a look are said to take."""

    def __init__(self, clock: list[float], steps: int, look_seconds: float):
        self.clock = clock
        self.look_seconds = look_seconds
        self.looks = []
        super().__init__(lambda: self._steps(steps), lambda _: self.looks.append(self.last), "a prompt", steps)

    def _steps(self, n: int):
        for step in range(1, n + 1):
            self.clock[0] += 1
            yield step

    def prepare(self):
        self.clock[0] += self.look_seconds


@pytest.mark.parametrize(
    "refresh, look_seconds, looks",
    [
        (0.25, 0, [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]),  # every step, and the end
        (3, 0, [1, 4, 7, 9]),
        (0.25, 2, [1, 5, 9, 9]),  # a look of two seconds, then four seconds of steps
        (1000, 0, [1, 9]),
    ],
)
def test_looks_take_at_most_a_third_of_the_time_and_come_no_more_often_than_needed(
    monkeypatch, refresh, look_seconds, looks
):
    clock = [0.0]
    monkeypatch.setattr(work, "monotonic", lambda: clock[0])
    monkeypatch.setattr(work, "REFRESH", refresh)
    counted = Counted(clock, 9, look_seconds)
    counted.join(HANG)
    assert counted.is_over and counted.error is None and counted.looks == looks
    assert counted.seconds == 9  # the looks are not counted


AT_WORK = """
    import time, warnings
    from mmlesson.teach.widgets.work import LongWork

    def steps():
        for number in range(10**9):
            print("out of the thread")
            warnings.warn(f"out of the thread, {number}")
            compute()
            yield number

    def work_a_step():
        shown = []
        work = LongWork(steps, lambda work: shown.append(work.last), "a prompt", 10**9)
        while not shown:
            time.sleep(0.01)
        return work
"""
TORCH = """
    import torch

    net = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3), torch.nn.ReLU(), torch.nn.Conv2d(64, 64, 3))

    def compute():
        net(torch.rand(4, 3, 64, 64)).square().mean().backward()
"""


def test_a_process_that_exits_at_work_ends_well():
    code = textwrap.dedent(AT_WORK) + textwrap.dedent(TORCH) + "work_a_step()"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""  # torch would abort it in the middle of a step


def test_in_a_kernel_other_cells_run_and_what_the_thread_prints_stands_under_none(tmp_path):
    sources = [
        AT_WORK + "    compute = lambda: time.sleep(0.01)",
        "work = work_a_step()",
        "print('mine')",
        "work = work_a_step(); print('mine too')",
        "work.end(); print(work.is_over, work.error)",
    ]
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(source).strip()) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    place = {"metadata": {"path": tmp_path}}
    nbclient.NotebookClient(notebook, timeout=HANG, kernel_name="python3", resources=place).execute()
    printed = ["".join(output.get("text", output.output_type) for output in cell.outputs) for cell in notebook.cells]
    assert printed == ["", "", "mine\n", "mine too\n", "True None\n"]
