"""Every figure is a PNG that says in words what it shows."""

import io
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

from mmlesson import figures, world

IMAGES = [world.scene(name).render(64) for name in ("cat", "dog", "pizza")]
NAMES = ["a cat", "a dog", "a pizza"]
EYE = np.eye(3) * 0.8 + 0.1

Found = namedtuple("Found", "id caption score image", defaults=[IMAGES[0]])

DRAW = {
    "gallery": lambda: figures.gallery(IMAGES, NAMES, marks=["right", "wrong", ""]),
    "similarity": lambda: figures.similarity(IMAGES, NAMES, EYE, "Cosines", symbols=True),
    "probabilities": lambda: figures.probabilities(IMAGES[0], NAMES, [0.7, 0.29, 0.001], "Which?"),
    "temperature": lambda: figures.temperature(NAMES, [0.8, 0.5, 0.3], [1.0, 0.1], own=0.1),
    "loss_curve": lambda: figures.loss_curve(np.linspace(4, 0.5, 60), chance=4.16),
    "sharpening": lambda: figures.sharpening({0: np.zeros((3, 3)), 10: EYE}),
    "grouped_bars": lambda: figures.grouped_bars(["yours", "theirs"], {"right": [0.5, 0.9]}, "share", chance=0.25),
    "histogram": lambda: figures.histogram({"near": [0.7, 0.8, 0.9], "far": [0.1, 0.2, 0.3]}, "cosine", threshold=0.5),
    "leaning": lambda: figures.leaning(["cook", "pilot"], [0.2, -0.1], "a man", "a woman"),
    "hits": lambda: figures.hits({"a cat": [Found(0, "a cat", 0.91)], "a yeti": []}, columns=2, right={"a cat": [0]}),
    "tradeoff": lambda: figures.tradeoff([1, 2, 3], [0.5, 0.8, 0.99], ["1 cell", "4 cells", "16 cells"], exact_ms=12),
    "growth": lambda: figures.growth([1000, 10**6], {"exact": [0.1, 160], "approximate": [None, 9]}, [False, True]),
}
SAYS = {
    "gallery": "a dog (wrong)",
    "similarity": "picture 2 matches “a dog” best (0.90)",
    "probabilities": "a cat 70%, a dog 29%, a pizza <1%",
    "temperature": "T = 0.1: 95%, 5%, 1%",
    "loss_curve": "blind guessing costs 4.16",
    "sharpening": "at step 10 the diagonal is 0.90 on average, the rest 0.10",
    "grouped_bars": "yours 50%, theirs 90%. Chance is 25%",
    "histogram": "near around 0.80; far around 0.20",
    "leaning": "pilot -0.10, cook +0.20",
    "hits": "“a cat” finds a cat (0.91); “a yeti” finds nothing",
    "tradeoff": "16 cells: 99% in 3.0 ms; exact search: 100% in 12.0 ms",
    "growth": "approximate: 1,000,000 in 9 ms (stored)",
}


@pytest.mark.parametrize("name", list(DRAW))
def test_a_picture_and_its_words(name):
    picture = DRAW[name]()
    image = Image.open(io.BytesIO(picture.png))
    assert image.format == "PNG" and image.width > 200 and image.height > 100
    assert len(image.convert("RGB").getcolors(100_000)) > 5, "an empty picture"
    assert SAYS[name] in picture.alt
    data, metadata = picture._repr_mimebundle_()
    assert data["image/png"] == picture.png and data["text/plain"] == picture.alt
    assert metadata["image/png"]["alt"] == picture.alt


def test_the_same_picture_twice():
    assert DRAW["similarity"]().png == DRAW["similarity"]().png


def bars(picture):
    """How many separate bars a chart of probabilities has: runs of bar colours down a column beside the axis."""
    pixels = np.asarray(picture.image()).astype(int)
    colours = [tuple(int(code[i : i + 2], 16) for i in (1, 3, 5)) for code in (figures.BLUE, figures.MARK)]
    hit = sum(np.abs(pixels - colour).sum(-1) < 12 for colour in colours) > 0
    column = hit[:, int(pixels.shape[1] * 0.45)]
    return int((np.diff(column.astype(int)) == 1).sum())


def test_equal_labels_keep_their_bars_and_dollars_are_no_formulas():
    blank = Image.new("RGB", (64, 64), "white")
    assert bars(figures.probabilities(blank, ["$a", "b$"], [0.6, 0.4])) == 2
    assert bars(figures.probabilities(blank, ["same", "same"], [0.6, 0.4])) == 2


def test_the_first_label_stands_on_top():
    """The longest bar belongs to the first label: with any number of temperatures it is the uppermost."""
    for temperatures in ([1.0], [1.0, 0.1], [1.0, 0.1, 0.05]):
        pixels = np.asarray(figures.temperature(NAMES, [0.9, 0.1, 0.0], temperatures).image()).astype(int)
        rows = {}
        for colour in (figures.MARK, figures.BLUE):
            code = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
            rows[colour] = np.nonzero((np.abs(pixels - code).sum(-1) < 12).any(axis=1))[0].mean()
        assert rows[figures.MARK] < rows[figures.BLUE]
