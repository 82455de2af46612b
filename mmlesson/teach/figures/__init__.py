"""Every picture that a lesson shows.

Each function returns a `Picture`: a PNG with a text alternative. Jupyter shows it where it is the last line of a cell.
"""

from mmlesson.teach.figures.clip import (
    answers,
    gap,
    grouped_bars,
    histogram,
    leaning,
    loss_curve,
    probabilities,
    sharpening,
    similarity,
    temperature,
)
from mmlesson.teach.figures.diagrams import causal_mask, cluster_build, dalle2_parts, stream, towers
from mmlesson.teach.figures.drawing import completion, nearest, next_tokens, sizes
from mmlesson.teach.figures.moving import Animation, animation
from mmlesson.teach.figures.painting import codebook, codes_over, painting_curves, patch_map
from mmlesson.teach.figures.pictures import film, gallery, reconstructions, versus
from mmlesson.teach.figures.search import growth, hits, tradeoff
from mmlesson.teach.figures.style import BLUE, GREEN, INK, MARK, ORANGE, PALE, QUIET, SERIES, Picture

__all__ = [
    "Animation",
    "BLUE",
    "GREEN",
    "INK",
    "MARK",
    "ORANGE",
    "PALE",
    "Picture",
    "QUIET",
    "SERIES",
    "animation",
    "answers",
    "causal_mask",
    "cluster_build",
    "codebook",
    "codes_over",
    "completion",
    "dalle2_parts",
    "film",
    "gallery",
    "gap",
    "grouped_bars",
    "growth",
    "histogram",
    "hits",
    "leaning",
    "loss_curve",
    "nearest",
    "next_tokens",
    "painting_curves",
    "patch_map",
    "probabilities",
    "reconstructions",
    "sharpening",
    "similarity",
    "sizes",
    "stream",
    "temperature",
    "towers",
    "tradeoff",
    "versus",
]
