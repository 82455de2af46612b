"""Work of many steps that a widget starts: it runs in a thread of its own, so that the kernel is free for other cells.

A kernel does one such work at a time. A new one stops the one before, waits for the step under way, and begins.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import sys
import threading
from collections.abc import Callable, Iterator
from time import monotonic

import ipywidgets

from mmlesson.teach.widgets.answer import Answer

REFRESH = 0.25  # seconds between two looks at the work, at least
LAST_STEP = 20  # seconds that a kernel which exits waits for the step under way, at most


def pause_after(preparing: float) -> float:
    """Seconds until the next look, after one that took `preparing` seconds: looks take at most a third of the time."""
    return max(REFRESH, 2 * preparing)


class LongWork(threading.Thread):
    """One work in its thread, which starts at once.

    `begin()` returns the steps, an iterator that can be closed. The thread calls `show(work)` when there is something
    new to see: at most every `REFRESH` seconds, at a pause, after it, and at the end. `error` then holds what went
    wrong. Each kind of work overrides `take_step`, and `prepare` and `finish` where a look needs a long computation:
    the kernel does not wait for these.
    """

    kind = "working"  # the name of the thread
    _latest: LongWork | None = None  # in this kernel

    def __init__(self, begin: Callable[[], Iterator], show: Callable[[LongWork], None], prompt: str, total: int):
        super().__init__(name=self.kind, daemon=True)  # the process may exit: `end` waits for one step, not for all
        self.prompt = prompt
        self.total = total
        self.last = None  # the latest step
        self.seconds = 0.0  # of work, without pauses
        self.is_over = False
        self.error: Exception | None = None
        self.stopped_because = ""  # "" where a learner pressed Stop
        self._begin = begin
        self._show = show
        self._going = threading.Event()
        self._going.set()
        self._stopping = threading.Event()
        self._showing = threading.Lock()
        self._is_left = False
        self._before = LongWork._latest
        LongWork._latest = self
        if self._before is not None:
            self._before.stop(because=f"a new {self.kind} began: a kernel does one at a time")
        atexit.register(self.end)
        self.start()

    # ---------------------------------------------------------------------------- what each kind overrides

    def take_step(self, steps: Iterator, step) -> None:
        """Keep what matters of `step`, which came out of `steps`."""
        self.last = step

    def prepare(self) -> None:
        """Compute what a look at the work shows."""

    def finish(self) -> None:
        """Compute what the last look shows, also after a stop."""

    # ------------------------------------------------------------------------------- what the buttons call

    @property
    def is_paused(self) -> bool:
        return not self._going.is_set()

    @property
    def is_stopped(self) -> bool:
        return self._stopping.is_set()

    def pause_or_resume(self) -> None:
        if self.is_paused:
            self._going.set()
        else:
            self._going.clear()
        if self.is_stopped or self.is_over:
            self._going.set()  # too late for a pause; another thread may have stopped the work a moment ago

    def stop(self, because: str = "") -> None:
        """End the work after the step under way. `because` is what a learner reads where it was not their Stop."""
        if not self.is_stopped and not self.is_over:
            self.stopped_because = because
        self._stopping.set()
        self._going.set()

    def while_it_runs(self, show: Callable[[], None]) -> None:
        """Call `show` unless the work is over: what it shows comes before the end, and never after it."""
        with self._showing:
            if not self.is_over and not self._is_left:
                show()

    def leave(self) -> None:
        """Stop, and show nothing from now on."""
        with self._showing:
            self._is_left = True
        self.stop()

    def end(self) -> None:
        """Leave, and wait for the step under way: torch aborts a process that exits in the middle of one."""
        self.leave()
        self.join(LAST_STEP)

    # ------------------------------------------------------------------------------------------ the thread

    def run(self) -> None:
        _print_into_no_cell()
        if self._before is not None:
            self._before.join()
            self._before = None
        try:
            if not self.is_stopped:
                with contextlib.closing(self._begin()) as steps:
                    self._follow(steps)
            if not self._is_left:
                self.finish()
        except Exception as error:
            self.error = error
        self.is_over = True
        atexit.unregister(self.end)
        self._show_now()

    def _follow(self, steps: Iterator) -> None:
        due = -math.inf
        while not self.is_stopped:
            began = monotonic()
            step = next(steps, None)
            if step is None:
                return
            self.seconds += monotonic() - began
            self.take_step(steps, step)
            if self.is_paused:
                self._look()
                self._going.wait()
                due = -math.inf
            if monotonic() >= due and not self.is_stopped:
                due = self._look()

    def _look(self) -> float:
        """Show how far the work is; returns when to show it again."""
        began = monotonic()
        if not self._is_left:
            self.prepare()
        ready = monotonic()
        self._show_now()
        return ready + pause_after(ready - began)

    def _show_now(self) -> None:
        with self._showing:
            if not self._is_left:
                self._show(self)


def _print_into_no_cell() -> None:
    """Send what this thread prints to the kernel's log. Jupyter would show it under whichever cell ran last."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "set_thread_parent"):  # ipykernel 7
            stream.set_thread_parent({})


def reason(work: LongWork) -> str:
    """Why a work was stopped, to follow "Stopped at …"; "" where a learner pressed Stop."""
    return f", because {work.stopped_because}" if work.stopped_because else ""


class Desk:
    """The work that one box began last, and what the box's buttons do with it.

    answer       where the box says what came out
    unit         the name of the steps: "steps", "codes"
    show_step    shows the work's latest step in the answer
    set_buttons  enables the buttons that make sense now; its argument is the work, None where there is none
    """

    def __init__(
        self,
        answer: Answer,
        unit: str,
        show_step: Callable[[LongWork], None],
        set_buttons: Callable[[LongWork | None], None],
    ):
        self._answer = answer
        self._unit = unit
        self._show_step = show_step
        self._set_buttons = set_buttons
        self._work: LongWork | None = None
        set_buttons(None)
        self._show_nothing_yet()

    def start(self, work: type[LongWork], steps: Callable[[], Iterator], prompt: str, total: int, *more) -> None:
        """Begin a work of this kind; `more` are further arguments of its class."""
        self._show_nothing_yet()
        self._answer.say(f"Starting “{prompt}” …")
        self._work = work(steps, self._show, prompt, total, *more)
        self._set_buttons(self._work)

    def leave(self) -> None:
        """Stop the work, if there is one, and forget it: it shows nothing from now on."""
        if self._work is not None:
            self._work.leave()
            self._work = None
        self._set_buttons(None)

    def leave_with(self, box: ipywidgets.Widget) -> None:
        """Leave the work when `box` is closed."""
        box.observe(lambda event: self.leave() if event.new is None else None, names="comm")

    def pause_or_resume(self, _event=None) -> None:
        if self._work is not None:
            self._work.pause_or_resume()
            if self._work.is_paused:
                self._say_at_once("Pausing after the step under way …")
            self._set_buttons(self._work)

    def stop(self, _event=None) -> None:
        if self._work is not None:
            self._work.stop()
            self._say_at_once("Stopping after the step under way …")
            self._set_buttons(self._work)

    def _say_at_once(self, sentence: str) -> None:
        """A press is answered now: while another cell runs, a step may take seconds."""
        self._work.while_it_runs(lambda: self._answer.say_progress(sentence))

    def _show_nothing_yet(self) -> None:
        self._answer.show_growing(None, "No picture yet", "")

    def _show(self, work: LongWork) -> None:
        if work.error is not None:
            self._answer.say_problem(work.error)
        elif work.last is None:
            self._answer.say(f"Stopped before the first of {work.total} {self._unit}{reason(work)}.")
        else:
            self._show_step(work)
        self._set_buttons(work)
