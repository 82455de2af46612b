"""What lessons show and ask: figures, widgets, exercises, quizzes, and the lessons as pages and editions."""

import importlib

_LAZY = {  # name -> where it lives: imported when it is first used, as in mmlesson itself
    "check": "mmlesson.teach.exercises",
    "progress": "mmlesson.teach.exercises",
    "quiz": "mmlesson.teach.quizzes",
}


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
