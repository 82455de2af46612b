"""In the kernel of a presenter: slow cells show their stored result at once, and are computed behind it.

JupyterLab's kernel loads this as an extension of IPython; `MMLESSON_STORED` names the file with the stored results.

- The first run of a slow cell shows what the course's notebook holds, with a mark. Run again (key T), it runs truly.
- What is replayed is also computed, in a thread, one cell after the other in the order in which they were run, as soon
  as the class goes on to another cell. Until then T is the cell's first run, and not its second.
- While that thread is behind, quick cells replay too. So nobody waits, whatever is computed.
- A cell that cannot replay (it was changed, it holds a widget, it reads what a changed cell set) runs truly. It waits
  until all that was replayed is computed, and says so. No two cells ever run at once, so variables are always those of
  the cells in the order in which they were run.
- With MMLESSON_CLIP nothing replays: the stored results are those of the course's own CLIP.
- A cell that runs truly and needs cells that nobody ran (a widget at the top of its section) has them run before it.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import html
import json
import os
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmlesson.teach.present import again, watch
from mmlesson.teach.present.names import Names, names_in, needed, statements_in
from mmlesson.teach.widgets.work import LongWork

ENVIRONMENT = "MMLESSON_STORED"
OTHER_CLIP = "MMLESSON_CLIP"
SLOW = 3.0  # seconds that a cell took when its result was stored; from here on it replays
MARK = "mmlesson"  # the key in an output's metadata by which the page knows a mark
HERE = f"__import__({__name__!r}, fromlist=['of_this_kernel']).of_this_kernel()"


@dataclass
class Cell:
    """A code cell of a lesson, as it is stored."""

    id: str
    lesson: str
    source: str
    outputs: list[dict]
    seconds: float  # that it took when its outputs were stored
    date: str  # when that was, "2026-11-27"
    must_run: bool  # a widget: there is nothing to replay
    names: Names = field(default_factory=Names)

    @functools.cached_property
    def statements(self) -> list[tuple[str, Names]]:
        return statements_in(self.source)

    def part(self, numbers: list[int]) -> Cell:
        """The statements of these numbers as a cell of their own; nobody knows how long they take."""
        source = "\n".join(self.statements[number][0] for number in numbers)
        return Cell(self.id, self.lesson, source, [], 0.0, self.date, True)


def read(path: Path) -> list[Cell]:
    """The stored cells, each lesson's in their order."""
    cells = [Cell(**each) for each in json.loads(path.read_text(encoding="utf-8"))]
    for cell in cells:
        cell.names = names_in(cell.source)
    return cells


class Replays:
    """What one kernel has replayed, and what it still has to compute."""

    def __init__(self, shell, cells: list[Cell]):
        self._shell = shell
        self._is_own_clip = not os.environ.get(OTHER_CLIP)
        self._cells = cells
        self._by_id = {cell.id: cell for cell in cells}
        self._by_source = {cell.source.strip(): cell for cell in cells}
        self._asked: set[str] = set()  # the cells that somebody ran
        self._done: set[str] = set()  # the cells that ran truly, or are waiting for it
        self._ran: set[tuple[str, int]] = set()  # of others the statements, by their numbers, that ran or are waiting
        self._changed: set[str] = set()  # names that differ from the lesson's own
        self._plan: str | None = None  # what the cell that comes next is replaced by
        self._running: Cell | None = None  # the stored cell that runs now; None for another one
        self._names = Names()
        self._sets: frozenset[str] = frozenset()  # the names that it will have changed
        self._seconds = 0.0  # that it will take, about; 0 where nobody knows
        self._waiting: deque[Cell] = deque()  # replayed, and not computed yet
        self._latest: Cell | None = None  # the last of them, while it is what the class looks at
        self._marks: dict[str, watch.Place] = {}
        self._at_work: Cell | None = None
        self._found: dict[str, list[again.Restore]] = {}
        self._hurry = 0  # cells that wait until all is computed
        self._guests = 0  # answers to widgets that want the turn next
        self._turn = threading.Lock()  # held by what runs a cell, or what answers a widget
        self._news = threading.Condition()
        threading.Thread(target=self._work, name="replayed cells", daemon=True).start()

    # ------------------------------------------------------------------------------------- what IPython calls

    def before_cell(self, info) -> None:
        """Decide what happens to the cell that runs now; `visit` carries it out."""
        self._plan = None  # of a cell before that was no Python, so that `visit` never saw it
        if not info.store_history:
            return
        cell = self._stored(info)
        names = cell.names if cell else names_in(info.raw_cell)
        is_new = cell is None or cell.id not in self._asked
        with self._news:
            if cell is not None:
                self._asked.add(cell.id)
                if cell in self._waiting:
                    self._waiting.remove(cell)  # it runs now, or in the place where it is put now
            self._latest = None  # the class goes on
            behind = bool(self._waiting or self._at_work)
            as_stored = cell is not None and self._is_own_clip and not (names.reads & self._changed)
            replays = as_stored and is_new and not cell.must_run and (behind or cell.seconds >= SLOW)
            place = cell or self._by_id.get(info.cell_id)  # of a changed cell: the one that it was
            missing = self._missing(place, names)
            self._waiting.extend(missing)
            if place is not None:
                self._done.add(place.id)
            if as_stored:
                self._changed -= names.makes
            if replays:
                self._waiting.append(cell)
                self._latest = cell
                self._plan = f"{HERE}.show()"
            elif missing or behind or (cell is not None and cell.seconds >= SLOW):
                self._plan = f"{HERE}.wait()"
            self._running = cell
            self._names = names
            self._sets = frozenset() if as_stored else names.sets
            self._news.notify_all()
            self._seconds = cell.seconds if as_stored else 0.0
            waits = self._plan is not None
        if not waits:
            self._watch()

    def visit(self, tree: ast.Module) -> ast.Module:
        """An AST transformer: a replayed cell becomes a call that shows it; one that waits begins with a call."""
        plan, self._plan = self._plan, None
        if plan is None:
            return tree
        call = ast.parse(plan).body
        tree.body = call if plan.endswith("show()") else call + tree.body
        return tree

    def after_cell(self, result) -> None:
        watch.end()
        variables = self._shell.user_ns
        self._changed |= {name for name in self._sets if not _is_of_a_package(variables.get(name))}
        self._sets = frozenset()

    # --------------------------------------------------------------------------------------- what cells become

    def show(self) -> None:
        """Publish the stored outputs of the cell that runs now, below a mark."""
        cell = self._running
        self._marks[cell.id] = watch.Place(self._shell, {MARK: {"replayed": cell.id}})
        self._say(cell, "")
        for output in cell.outputs:
            if output["output_type"] == "stream":
                stream = sys.stderr if output["name"] == "stderr" else sys.stdout
                stream.write("".join(output["text"]))
                stream.flush()
            elif "data" in output:
                data = {kind: _joined(content) for kind, content in output["data"].items()}
                self._shell.display_pub.publish(data, output.get("metadata") or {})

    def wait(self) -> None:
        """Return when all that was replayed is computed. The class reads meanwhile what it waits for."""
        with self._news:
            self._hurry += 1
            self._news.notify_all()
        place = watch.Place(self._shell)
        told = 0
        try:
            while True:
                with self._news:
                    left = [*filter(None, [self._at_work]), *self._waiting]
                    if not left:
                        break
                    if len(left) != told:
                        place.show(_waits(left), "This cell waits for replayed cells.")
                        told = len(left)
                    self._news.wait(0.5)
        finally:
            with self._news:
                self._hurry -= 1
        if told:
            self._shell.display_pub.clear_output(wait=False)
        self._as_the_first_time(self._running)
        self._watch()

    def _watch(self) -> None:
        watch.begin(self._shell, self._names.sets, self._seconds)

    def _as_the_first_time(self, cell: Cell | None) -> None:
        """Before a slow cell runs: keep what it finds; before it runs again: put that back."""
        if cell is None or cell.seconds < SLOW:
            return
        if cell.id in self._found:
            for restore in self._found[cell.id]:
                restore()
        else:
            self._found[cell.id] = again.kept(self._shell.user_ns, cell.names.reads)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """For what answers a widget: no replayed cell is computed meanwhile."""
        with self._news:
            self._guests += 1
        with self._turn:
            with self._news:
                self._guests -= 1
                self._news.notify_all()
            yield

    # ---------------------------------------------------------------------------------------- which cells

    def _stored(self, info) -> Cell | None:
        """The stored cell that runs now; None where it was changed or is none of ours."""
        source = info.raw_cell.strip()
        cell = self._by_id.get(info.cell_id)
        if cell is not None and cell.source.strip() == source:
            return cell
        return self._by_source.get(source)

    def _missing(self, cell: Cell | None, names: Names) -> list[Cell]:
        """What stands before `cell` in its lesson, what it needs and what never ran: of each cell only such statements.

        A part of a cell does not count as a run of it.
        """
        before: list[tuple[Cell, int]] = []
        for each in self._cells:
            if cell is None or each is cell:
                break
            if each.lesson == cell.lesson:
                before += [(each, number) for number in range(len(each.statements))]
        wanted = needed(names.reads - self._changed, [each.statements[number][1] for each, number in before])
        parts: dict[str, list[int]] = {}
        for each, number in (before[place] for place in wanted):
            if each.id not in self._done and (each.id, number) not in self._ran:
                self._ran.add((each.id, number))
                parts.setdefault(each.id, []).append(number)
        return [self._by_id[name].part(numbers) for name, numbers in parts.items()]

    # -------------------------------------------------------------------------------------- what runs behind

    def _next(self) -> Cell:
        """The cell to compute now. What the class looks at still waits, and so does all while a picture is painted."""
        with self._news:
            while True:
                begins = self._waiting and self._waiting[0] is not self._latest and not self._guests
                if begins and (self._hurry or not _something_grows()):
                    self._at_work = self._waiting.popleft()
                    return self._at_work
                self._news.wait(0.5)

    def _work(self) -> None:
        _speak_to_nobody(self._shell)
        while True:
            cell = self._next()
            with self._turn:
                self._say(cell, "Its variables are being computed …")
                began = time.monotonic()
                error = self._run(cell)
            took = time.monotonic() - began
            self._say(cell, f"Its variables are computed ({took:.0f} s)." if error is None else f"It failed: {error}")
            with self._news:
                self._at_work = None
                self._news.notify_all()

    def _run(self, cell: Cell) -> str | None:
        """Run a cell truly and show nothing of it; returns what went wrong."""
        shell = self._shell
        try:
            self._as_the_first_time(cell)
            source = shell.transform_cell(cell.source)
            name = shell.compile.cache(source, shell.execution_count, raw_code=cell.source)
            exec(compile(source, name, "exec", shell.compile.flags), shell.user_ns)
        except BaseException as error:  # whatever it is, the next cells have their turn
            return f"{type(error).__name__}: {error}"[:200]
        return None

    def _say(self, cell: Cell, state: str) -> None:
        """Show in the mark of a cell how far its computation is. A cell that another one needed has no mark."""
        mark = self._marks.get(cell.id)
        if mark is not None:
            mark.show(_mark(cell, state), _text(cell))


def _text(cell: Cell) -> str:
    took = f", which took {cell.seconds:.0f} s" if cell.seconds >= 1 else ""
    return f"Replayed: the stored result of {cell.date}{took}."


def _joined(content):
    return "".join(content) if isinstance(content, list) else content


def _mark(cell: Cell, state: str) -> str:
    said = f' <span class="mmlesson-state">{html.escape(state)}</span>' if state else ""
    return (
        f'<div class="mmlesson-replayed" role="note"><b>↻ {html.escape(_text(cell))}</b> '
        f'<button type="button" data-mmlesson-truly>Run it truly <kbd>T</kbd></button>{said}</div>'
    )


def _waits(left: list[Cell]) -> str:
    seconds = sum(cell.seconds for cell in left)
    cells = "one cell before it is" if len(left) == 1 else f"{len(left)} cells before it are"
    about = f": about {seconds:.0f} s" if seconds >= 1 else ""
    return f'<div class="mmlesson-replayed" role="status">This runs as soon as {cells} computed{about}.</div>'


def _is_of_a_package(value) -> bool:
    """Whether a value came from an import, and not from a cell."""
    return isinstance(value, types.ModuleType) or (
        isinstance(value, (types.FunctionType, type)) and value.__module__ != "__main__"
    )


def _something_grows() -> bool:
    """Whether a painting or drawing of a widget goes on: it keeps the processor for itself while nobody waits."""
    work = LongWork._latest
    return work is not None and work.is_alive() and not work.is_paused


def _speak_to_nobody(shell) -> None:
    """What this thread prints, displays and warns of is shown nowhere."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "set_thread_parent"):
            stream.set_thread_parent({})
    if hasattr(shell.display_pub, "register_hook"):
        shell.display_pub.register_hook(lambda message: None)


# ------------------------------------------------------------------------------------------- the extension

_here: Replays | None = None


def of_this_kernel() -> Replays:
    return _here


def load_ipython_extension(shell) -> None:
    """IPython calls this when the kernel starts."""
    global _here
    path = os.environ.get(ENVIRONMENT, "")
    if _here is not None or not path:
        return
    _here = Replays(shell, read(Path(path)))
    shell.events.register("pre_run_cell", _here.before_cell)
    shell.events.register("post_run_cell", _here.after_cell)
    shell.ast_transformers.append(_here)
    _give_widgets_their_turn(shell, _here)
    threading.Thread(target=_import_what_takes_long, name="imports", daemon=True).start()


def _give_widgets_their_turn(shell, replays: Replays) -> None:
    """The answer to a widget's control and a replayed cell never compute at once."""
    kernel = getattr(shell, "kernel", None)
    answer = kernel and kernel.shell_handlers.get("comm_msg")
    if answer is None:
        return

    def in_turn(*message):
        if threading.current_thread() is not threading.main_thread():
            return answer(*message)  # "Stop" and "Pause", which only set a flag
        with replays.turn():
            return answer(*message)

    kernel.shell_handlers["comm_msg"] = in_turn


def _import_what_takes_long() -> None:
    """The first cell of a lesson then waits less."""
    with contextlib.suppress(Exception):
        from mmlesson.models.libraries import open_clip  # noqa: F401  the import is the work; torch comes with it
