"""The exercises: `check("1.3", answer)` says that an answer is right, or what is wrong with it and a hint.

A second wrong answer brings a second hint, and a third one says where the solution is. `progress()` shows how far a
learner is.

A check asks for a property and not for the pocket models' exact numbers, so that it holds under another
`MMLESSON_CLIP` too. It runs a learner's function on inputs that the page does not show and compares what comes back
with a reference. It judges a sentence by what it means. The files `own_….py` hold the open tasks: many answers
are right, and the check measures what the reader made.
"""

from mmlesson.teach.exercises import (  # noqa: F401 (importing registers the exercises)
    clip,
    drawing,
    own_captions,
    own_drawing,
    own_painting,
    own_search,
    painting,
    search,
)
from mmlesson.teach.exercises.checking import Verdict, check
from mmlesson.teach.exercises.painting import two_grids
from mmlesson.teach.exercises.table import Progress, progress

__all__ = ["Progress", "Verdict", "check", "progress", "two_grids"]
