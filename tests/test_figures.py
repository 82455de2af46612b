"""Every figure is a PNG that says in words what it shows."""

import base64
import io
import re
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

from mmlesson import figures, lessons, world
from mmlesson.images import ImageError

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
    "codes_over": lambda: figures.codes_over(IMAGES[0], np.arange(144).reshape(12, 12) * 7, mark=[(2, 3)]),
    "codebook": lambda: figures.codebook([Image.new("RGB", (8, 8), name) for name in ("white", "red", "snow")], [4, 1023, 7], columns=2),
    "versus": lambda: figures.versus({"plain": IMAGES, "prior": IMAGES[:2]}, {"plain": ["guide 0.95"] * 3}, ["seed 0", "seed 1"]),
    "reconstructions": lambda: figures.reconstructions([IMAGES[0]], [Image.new("RGB", (32, 32))], NAMES[:1], rows=("before", "after")),
    "patch_map": lambda: figures.patch_map(IMAGES[:2], np.stack([np.eye(12), np.full((12, 12), 0.25)]), ["real", "made"]),
    "film": lambda: figures.film(IMAGES, ["step 1, loss 0.74", "step 2, loss 0.50", "step 3"]),
    "painting_curves": lambda: figures.painting_curves([0.9, 0.4, 0.5], {"a cat": [0.1, 0.6, 0.5], "blur": [0.0, 0.3, 0.49]}),
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
    "codes_over": "The first row is 0, 7, 14, 21, 28, 35, 42, 49, 56, 63, 70, 77. Outlined: row 3, column 4: code 189.",
    "codebook": "nearest to white: 4, 7; nearest to red: 1023",
    "versus": "plain (seed 0: guide 0.95, seed 1: guide 0.95, picture 3: guide 0.95); prior (seed 0, seed 1)",
    "reconstructions": "1 pictures (before), and under each what was made of it (after): a cat, error 0.",
    "patch_map": "real: 8% on average, its places from 0% to 50%; made: 25% on average, its places from 25% to 25%",
    "film": "A film of 3 pictures: step 1, loss 0.74; step 2, loss 0.50; step 3.",
    "painting_curves": "loss: from 0.90 to 0.50, lowest 0.40, highest 0.90; a cat: from 0.10 to 0.50, lowest 0.10, highest 0.60",
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


def test_numbers_of_codes_have_room():
    """Four digits in each of 144 places stay apart from those beside them."""
    white = Image.new("RGB", (96, 96), "white")
    pixels = np.asarray(figures.codes_over(white, np.full((12, 12), 1023)).image().convert("L"))
    inked = np.nonzero((pixels[: int(0.9 * len(pixels))] < 90).any(axis=0))[0]  # columns with ink; lines are paler
    assert (np.diff(inked) > 10).sum() == 11


# ------------------------------------------------------------------------------------------- animations


def frames(n, side=48):
    """A bright square that crosses a noisy picture."""
    noise = np.random.default_rng(0).integers(0, 60, (side, side, 3), dtype=np.uint8)
    for place in np.linspace(0, side - 12, n).astype(int):
        pixels = noise.copy()
        pixels[12:24, place : place + 12] = (250, 200, 60)
        yield Image.fromarray(pixels)


def played(animation):
    """(milliseconds, RGB picture) of each frame of its GIF."""
    film = Image.open(io.BytesIO(animation.gif))
    assert film.format == "GIF" and film.info["loop"] == 0
    shown = []
    for number in range(film.n_frames):
        film.seek(number)
        shown.append((film.info["duration"], film.convert("RGB")))
    return shown


def test_an_animation_moves_and_says_what_it_shows():
    pictures = list(frames(10))
    animation = figures.animation(pictures, 'A "square" crosses & stays', fps=20, scale=3)
    shown = played(animation)
    assert [duration for duration, _ in shown] == [50] * 9 + [2000]
    for picture, (_, image) in zip(pictures, shown):
        assert np.abs(np.asarray(image).astype(int) - np.asarray(picture)).mean() < 12
    assert (animation.width, animation.height) == (144, 144)

    data, metadata = animation._repr_mimebundle_()
    assert set(data) == {"text/html", "image/png", "text/plain"} and data["text/plain"] == animation.alt
    assert 'alt="A &quot;square&quot; crosses &amp; stays" width="144" height="144"' in data["text/html"]
    assert base64.b64decode(re.search(r"data:image/gif;base64,([^\"]+)", data["text/html"])[1]) == animation.gif
    assert metadata["image/png"] == {"alt": animation.alt, "width": 144, "height": 144}
    last = Image.open(io.BytesIO(data["image/png"])).convert("RGB")
    assert np.abs(np.asarray(last).astype(int) - np.asarray(pictures[-1])).mean() < 6, "where nothing moves, the last picture"


def test_an_animation_keeps_within_its_size():
    noise = [Image.fromarray(each) for each in np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), dtype=np.uint8)]
    free = figures.animation(noise, "noise", fps=10)
    bound = figures.animation(noise, "noise", fps=10, most=len(free.gif) // 4)
    assert len(played(free)) == 40
    assert len(bound.gif) <= len(free.gif) // 4 and 2 <= len(played(bound)) < 40
    assert played(bound)[0][0] > 100, "fewer pictures take as long together"


def test_one_picture_is_an_animation_too():
    assert len(played(figures.animation(IMAGES[:1], "a cat", most=10))) == 1


@pytest.mark.parametrize(
    "images, alt, fps, error, says",
    [
        ([], "nothing", 12, ImageError, "at least one"),
        ([IMAGES[0], IMAGES[0].resize((32, 32))], "two sizes", 12, ImageError, "same size"),
        (IMAGES, "too fast", 100, ImageError, "0.1 to 50"),
        (IMAGES, " ", 12, ValueError, "text alternative"),
    ],
)
def test_no_animation(images, alt, fps, error, says):
    with pytest.raises(error, match=says):
        figures.animation(images, alt, fps)


def test_an_animation_in_a_notebook_and_on_its_page(tmp_path):
    """Executed by a kernel, then written as a page: it still moves, requests nothing, and keeps its words."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    source = (
        "from PIL import Image\n"
        "from mmlesson import figures\n"
        "figures.animation([Image.new('RGB', (16, 16), colour) for colour in ('red', 'white', 'blue')], 'Red, white and blue')"
    )
    folder = tmp_path / "notebooks"
    folder.mkdir()
    nbformat.write(new_notebook(cells=[new_code_cell(source)]), folder / "00_film.ipynb")
    [run] = lessons.run_lessons(folder, tmp_path / "pages", write_back=True)
    [output] = nbformat.read(folder / "00_film.ipynb", as_version=4).cells[0].outputs
    assert output.metadata["image/png"]["alt"] == output.data["text/plain"] == "Red, white and blue"
    page = run.html.read_text()
    for where in (output.data["text/html"], page):
        [tag] = re.findall(r"<img [^>]*gif[^>]*>", where)
        assert 'alt="Red, white and blue"' in tag and 'width="48"' in tag
        film = Image.open(io.BytesIO(base64.b64decode(re.search(r"data:image/gif;base64,([^\"]+)", tag)[1])))
        assert film.n_frames == 3
    assert page.count("<img ") == 1 and "<script" not in page
