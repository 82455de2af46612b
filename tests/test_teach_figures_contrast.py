"""Every text of every figure can be read: at least 4.5 : 1 against each pixel behind it (WCAG 2.2, 1.4.3), and no text
lies on another one, or touches the edge."""

import functools
import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from test_teach_figures import DRAW, IMAGES, NAMES, TOKENS, drawn

from mmlesson.teach import figures
from mmlesson.teach.figures.search import unbeaten
from mmlesson.teach.figures.style import contrast, new_figure, readable_on

LEAST = 4.5
ROUGH = [0.9, 0.03, 0.97] * 13
SHADES = np.linspace(-0.2, 0.95, 16).reshape(4, 4)
FOUR = [*IMAGES, IMAGES[0]]
CLEAR = 3  # pixels between what is drawn and each edge of the picture
LONG = [  # captions of different heights, as scenes have them
    "a sport utility vehicle left of a glass of milk on a green background",
    "a croissant on a purple background",
    "an angry face above a flashlight on a green background",
]
MORE = {  # the same figures with values that stand on every shade, or in the way of a line
    "similarity of all shades": lambda: figures.similarity(FOUR, ["a", "b", "c", "d"], SHADES),
    "similarity below 0": lambda: figures.similarity(IMAGES, NAMES, np.full((3, 3), -0.4)),
    "patches of all shades": lambda: figures.patch_map(IMAGES[:1], np.linspace(0, 1, 36).reshape(1, 6, 6), ["one"]),
    "a bar as high as chance": lambda: figures.grouped_bars(
        ["a", "b"], {"x": [0.25, 0.9], "y": [0.2, 0.26]}, "s", 0.25
    ),
    "low bars": lambda: figures.grouped_bars(["a", "b", "c"], {"right": [0.96, 0.97, 0.97]}, "share", chance=1 / 597),
    "a threshold behind the legend": lambda: figures.histogram({"far": [0.1, 0.9], "near": [0.2] * 9}, "cosine", 0.8),
    "a long caption": lambda: figures.stream(["start", "a", "cat"] * 8, range(30)),
    "towers of a long text": lambda: figures.towers(IMAGES[0], ["<start_of_text>", *["overflowing</w>"] * 9], 224, 512),
    "padding": lambda: figures.stream(TOKENS, range(4)),
    "a zigzag": lambda: figures.tradeoff(
        [0.9, 0.8, 1.1, 1.2, 1.7],
        [0.6, 0.8, 0.9, 0.97, 1.0],
        ["1 cell", "2 cells", "4 cells", "8 cells", "16 cells"],
        5.0,
    ),
    "settings that lie close together": lambda: figures.tradeoff(
        [0.9, 0.8, 1.1, 1.0, 1.7, 1.65, 4.4],
        [0.5, 0.66, 0.81, 0.9, 0.985, 0.99, 0.996],
        [f"{cells} cells" for cells in (1, 2, 4, 8, 16, 32, 64)],
        4.6,
    ),
    "two equal growths": lambda: figures.growth(
        [1000, 10**4, 10**5, 10**6],
        {"exact": [0.3, 0.4, 4.4, 49], "approximate": [0.3, 0.42, 4.4, 15]},
        [False] * 3 + [True],
    ),
    "growths that cross": lambda: figures.growth(
        [1000, 10**4, 10**5, 10**6],
        {"exact": [0.27, 0.36, 5.3, 49], "approximate": [0.41, 1, 4.4, 15]},
        [False] * 3 + [True],
    ),
    "a threshold near the end": lambda: figures.histogram({"far": [0.1, 0.9], "near": [0.2] * 9}, "cosine", 0.88),
    "a gallery of many columns": lambda: figures.gallery(IMAGES * 6, ["a factory worker at work"] * 18, columns=8),
    "a row of marks in two lines": lambda: figures.gallery(
        IMAGES * 3, ["a cocktail glass\nan ear of corn"] * 9, columns=9, marks=["an ear of corn"] * 9
    ),
    "long names of groups": lambda: figures.grouped_bars(
        ["cat", "a cat", "a photo of a cat", "a picture of a cat", "ensemble of four"], {"right": [0.7] * 5}, "s", 0.03
    ),
    "a completion and its original": lambda: figures.completion(
        IMAGES, 6, 12, ["a long caption of two lines or more"] * 3, original=IMAGES[0]
    ),
    "a loss that starts at chance": lambda: figures.loss_curve(np.linspace(4.2, 4.1, 60), chance=4.16),
    "six long captions": lambda: figures.reconstructions(2 * IMAGES, 2 * IMAGES, 2 * LONG),
    "long headings and marks": lambda: figures.versus({"one": IMAGES, "other": IMAGES}, {"one": LONG}, LONG),
    "long captions of a gallery": lambda: figures.gallery(IMAGES, LONG, columns=3),
    "long captions of a film": lambda: figures.film(IMAGES, LONG),
    "a painting of one long prompt": lambda: figures.painting_curves(ROUGH, {LONG[0]: ROUGH}),
    "a painting of long prompts": lambda: figures.painting_curves(ROUGH, dict.fromkeys(LONG, ROUGH)),
}


def pixels(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def unreadable(figure: Figure) -> list[str]:
    """What is wrong with the texts of a figure: each text with its colour, what lies behind it, and their contrast."""
    figure.set_layout_engine("none")  # the places are those of the picture that was saved
    texts = [each for each in figure.findobj(Text) if each.get_visible() and each.get_text().strip()]
    colours = [to_rgb(each.get_color()) for each in texts]
    for text in texts:
        text.set_color((0, 0, 0, 0))  # a box behind it, if it has one, stays
    behind = pixels(figure)
    for text in texts:
        text.set_color("magenta")  # which no figure has: so strokes are seen even where they hide
    strokes = (pixels(figure) != behind).any(-1)
    assert strokes.any(), "a figure without a word"
    boxes = [each.get_window_extent() for each in texts]
    found = [
        f"{one.get_text()!r} lies on {other.get_text()!r}"
        for (one, a), (other, b) in itertools.combinations(zip(texts, boxes, strict=True), 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1  # pixels
    ]
    for text, colour, box in zip(texts, colours, boxes, strict=True):
        rows = slice(max(0, int(len(strokes) - box.y1)), max(0, int(len(strokes) - box.y0) + 1))
        columns = slice(max(0, int(box.x0)), max(0, int(box.x1) + 1))
        under = np.unique(behind[rows, columns][strokes[rows, columns]], axis=0) / 255
        least = min((contrast(colour, each) for each in under), default=LEAST)  # a tick outside of the axes has none
        if least < LEAST:
            found.append(f"{text.get_text()!r}: {least:.2f}")
    return found


@pytest.mark.parametrize("name", [*DRAW, *MORE])
def test_every_text_can_be_read(name):
    _, figure = drawn(({**DRAW, **MORE})[name])
    assert unreadable(figure) == []


@pytest.mark.parametrize("name", [*DRAW, *MORE])
def test_nothing_touches_the_edge(name):
    """In the picture itself: a second drawing of the figure would give words the room that the first did not."""
    picture, _ = drawn(({**DRAW, **MORE})[name])
    inked = np.asarray(picture.image().convert("L")) < 200
    for side, edges in (("top, bottom", inked.any(axis=1)), ("left, right", inked.any(axis=0))):
        places = edges.nonzero()[0]
        assert min(places[0], len(edges) - 1 - places[-1]) >= CLEAR, side


def test_a_sign_on_a_line_says_whose_line_it_is():
    """One prompt needs none. Of several, each has its own, and its name begins with it."""
    prompts = {"a cat": ROUGH}, {"a cat": ROUGH, "a dog": ROUGH[::-1]}
    (loss, one), (_, two) = (
        drawn(functools.partial(figures.painting_curves, ROUGH, scores))[1].axes for scores in prompts
    )
    assert [axes.lines[0].get_marker() for axes in (loss, one)] == ["None", "None"]
    assert one.get_title() == "a cat" and [text.get_text() for text in one.texts] == ["0.97"]
    assert [line.get_marker() for line in two.lines] == ["o", "s"] and two.get_title() == ""
    assert [text.get_text() for text in two.texts] == ["● 0.97 a cat", "■ 0.90 a dog"]


def test_contrast_is_that_of_the_guidelines():
    assert contrast("black", "white") == pytest.approx(21)
    assert contrast("#777777", "white") == pytest.approx(4.48, abs=0.01)
    assert contrast("white", "#777777") == contrast("#777777", "white")


@pytest.mark.parametrize("grey", np.linspace(0, 1, 64))
def test_there_is_a_readable_colour_on_every_grey(grey):
    assert contrast(readable_on((grey, grey, grey)), (grey, grey, grey)) >= LEAST


def test_what_cannot_be_read_is_found():
    """The measure itself: grey on grey, and a line through a word."""
    figure = new_figure(3, 2)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.text(0.5, 0.8, "grey", color="#999999")
    axes.text(0.2, 0.3, "struck through", color="black", va="center", fontsize=14)
    axes.axhline(0.3, color="black")
    axes.text(0.2, 0.1, "fine", color="black")
    axes.text(0.6, 0.1, "one", color="black")
    axes.text(0.62, 0.12, "other", color="black")
    figure.canvas.draw()
    [pair, first, second] = unreadable(figure)
    assert pair == "'one' lies on 'other'"
    assert first == "'grey': 2.85" and second == "'struck through': 1.00"


def test_the_line_of_a_tradeoff_never_falls():
    """Whatever the times were: it starts at the fastest setting and goes through those that no other one beats."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = list(zip(rng.uniform(0.1, 5, 7).round(1), rng.uniform(0, 1, 7).round(1), strict=True))
        times, recalls = zip(*unbeaten(points), strict=True)
        assert list(times) == sorted(set(times)) and list(recalls) == sorted(set(recalls))
        assert times[0] == min(time for time, _ in points) and recalls[-1] == max(recall for _, recall in points)
        beaten = set(points) - set(zip(times, recalls, strict=True))
        for time, recall in beaten:
            assert any(t <= time and r >= recall for t, r in zip(times, recalls, strict=True))
