"""Buttons that answer while a cell runs, such as "Stop" and "Pause".

A kernel reads the messages of widgets in its main thread, which a running cell keeps busy: a press waits for the end of
the cell. Since version 7 ipykernel has subshells, threads that read messages beside the main one (Jupyter Enhancement
Proposal 91). JupyterLab can send all widgets' messages to one, by its setting `commsOverSubshells`. With ipykernel 7.4
that is not enough: it sends a message of a widget to the shell that wrote to this widget last, and that is the main
one, where a cell made the widget. So the kernel itself has to name a subshell for these buttons.

Only buttons that set a flag come here. What computes stays in the main thread, as cells do: matplotlib's pyplot and
Python's `catch_warnings` cannot be used by two threads at once. A button that computes, such as "Start", has to wait
for the running cell; `say_that_it_waits` has its widget say so at once.
"""

from __future__ import annotations

import functools
import logging
import threading
from concurrent.futures import Future

import ipywidgets

from mmlesson.teach.widgets.answer import Answer

SOON = 0.2  # seconds after which a press that nothing answered is waiting
STARTING = 10  # seconds that a kernel may take to start the thread, at most
_subshell: str | None = None  # that of this process, which is one kernel


def answer_always(*buttons: ipywidgets.Button) -> bool:
    """Let the kernel read these buttons' messages in a thread of its own; returns whether it does.

    False outside a kernel, and where ipykernel is older than 7.4: a press then waits for the cell that runs, unless the
    front end itself sends widgets' messages to a subshell.
    """
    if not all(hasattr(button.comm, "_reply_subshell_for") for button in buttons):
        return False
    subshell = _own_subshell()
    if subshell is None:
        return False
    for button in buttons:
        button.comm._reply_subshell_for = lambda data, default: subshell
    return True


def say_that_it_waits(answer: Answer, *buttons: ipywidgets.Button) -> bool:
    """Let `answer` say at once that a pressed button waits for the cell that runs; returns whether it will.

    The kernel looks at each message of a widget in a thread that only passes messages on, before it puts it into the
    queue of the main thread. There a press is seen although nobody can answer it yet. When the main thread answers it,
    the handler of the button ends what was said (`Answer.handles`). False where `answer_always` returns False.
    """
    if not all(hasattr(button.comm, "_reply_subshell_for") for button in buttons):
        return False
    for button in buttons:
        button.comm._reply_subshell_for = functools.partial(_seen, button.comm._reply_subshell_for, answer, button)
    return True


def _seen(route, answer: Answer, button: ipywidgets.Button, data, default):
    """Pass a message of a button on, as ipykernel itself does, and remember a press."""
    try:
        if isinstance(data, dict) and data.get("content", {}).get("event") == "click":
            number = answer.expect_answer()
            timer = threading.Timer(SOON, answer.say_waiting, (number, button.description))
            timer.daemon = True
            timer.start()
    except Exception as error:  # a press counts for more than what is said of it
        logging.getLogger(__name__).warning("a widget cannot say that it waits: %r", error)
    return route(data, default)


def _own_subshell() -> str | None:
    """The subshell of the course's buttons, which starts when it is first asked for; None where there cannot be one."""
    global _subshell
    from ipykernel.kernelbase import Kernel

    thread = getattr(Kernel.instance(), "shell_channel_thread", None) if Kernel.initialized() else None
    if thread is None:
        return None
    if _subshell is None or _subshell not in thread.manager.list_subshell():
        started: Future[str] = Future()
        # subshells start in the thread that hands out the messages, and in no other
        thread.io_loop.add_callback(lambda: _start(thread.manager, started))
        try:
            _subshell = started.result(STARTING)
        except Exception as error:  # the inside of ipykernel: whatever changes there, a widget still shows itself
            logging.getLogger(__name__).warning("Stop and Pause wait for running cells: %r", error)
            return None
    return _subshell


def _start(manager, started: Future[str]) -> None:
    try:
        started.set_result(manager._create_subshell())
    except Exception as error:
        started.set_exception(error)
