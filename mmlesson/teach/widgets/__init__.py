"""The course's controls in a notebook: a learner tries a model by hand and types nothing but words.

Each function returns an ipywidgets box. As the last line of a cell it shows itself.

    own_picture(clip)                    a picture of the learner's own, classified among labels of their own
    temperature(clip, image, texts)      a slider that shows what the temperature makes of the same cosines
    compose(clip)                        a scene that the learner makes: does the order of the words count?
    search_box(index)                    pictures found by a sentence, and by "more like this" and "less like that"
    painter_box(guide, vqgan)            a picture that grows out of random codes until it shows what a sentence says
    token_explorer(dalle, vqgan)         what a DALL-E expects at a place of a picture, and what another code changes
    sampler_box(dalle, vqgan)            pictures of a sentence, drawn code by code under the learner's own settings

What a learner does wrong (no picture, a broken file, no labels) is answered by a sentence in the widget, never by a
traceback; wrong arguments in code raise. Every control has a description, every picture has a text alternative, and
colour alone says nothing. Only this package imports ipywidgets.

A file holds the widgets of one lesson. `parts.py` has the fields and buttons that they are built from, `frame.py` what
is around them, `answer.py` shows what came out, `work.py` runs what takes long, and `always.py` has its "Stop" answer
while other cells run.
"""

from mmlesson.teach.widgets.classify import compose, own_picture, temperature
from mmlesson.teach.widgets.explorer import token_explorer
from mmlesson.teach.widgets.painting import painter_box
from mmlesson.teach.widgets.sampler import sampler_box
from mmlesson.teach.widgets.search import search_box

__all__ = [
    "compose",
    "own_picture",
    "painter_box",
    "sampler_box",
    "search_box",
    "temperature",
    "token_explorer",
]
