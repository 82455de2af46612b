"""Runs one notebook in a fresh kernel, and prints a line of JSON for each exercise: its number and the verdict.

It is started behind the walls, in the folder of the copied notebook: `python -m mmlesson.teach.grading.inside NOTEBOOK
SECONDS`, the seconds for one cell. It keeps of a cell's outputs only the verdict. A cell that fails is passed over, and
one that takes too long is interrupted; after three of these the rest is left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from mmlesson.teach.grading import reading

MOST_HANGS = 3
LONGEST_VERDICT = 5_000  # letters


def main(name: str, seconds: int) -> None:
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    class Client(NotebookClient):
        """Keeps results that could be verdicts, and no other output: a cell may print without end."""

        def output(self, outs, msg, display_id, cell_index):
            if msg["msg_type"] == "error":  # only its name: KeyboardInterrupt says that the cell was interrupted
                outs.append(nbformat.v4.new_output("error", ename=str(msg["content"].get("ename"))[:50]))
            elif msg["msg_type"] == "execute_result":
                said = str(msg["content"]["data"].get("text/plain", ""))[:LONGEST_VERDICT]
                outs.append(nbformat.v4.new_output("execute_result", data={"text/plain": said}))

    found = reading.cells(Path(name))
    cells = [nbformat.v4.new_code_cell(cell["source"]) for cell in found if cell["source"].strip()]
    client = Client(
        nbformat.v4.new_notebook(cells=cells),
        kernel_name="python3",
        timeout=seconds,
        interrupt_on_timeout=True,
        allow_errors=True,
        record_timing=False,
        store_widget_state=False,
    )
    client.reset_execution_trackers()
    hangs = 0
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with client.setup_kernel(**quiet):
        for index, cell in enumerate(cells):
            number = reading.exercise_of(cell.source)
            try:
                client.execute_cell(cell, index)
                hangs += any(output.get("ename") == "KeyboardInterrupt" for output in cell.outputs)
            except CellTimeoutError:
                hangs += 1
            except DeadKernelError:
                say(stopped="the kernel died, as it does when memory runs out")
                return
            if number is not None:
                say(exercise=number, verdict=reading.verdict_in(number, cell.outputs))
            if hangs >= MOST_HANGS:
                say(stopped=f"{MOST_HANGS} cells took longer than {seconds} seconds")
                return
    say(stopped="")


def say(**what) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
