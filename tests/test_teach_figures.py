"""Every figure is a PNG that says in words what it shows."""

import base64
import functools
import html
import io
import re
from collections import namedtuple
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mmlesson import world
from mmlesson.pixels import ImageError
from mmlesson.teach import figures, lessons
from mmlesson.teach.figures import style

IMAGES = [world.scene(name).render(64) for name in ("cat", "dog", "pizza")]
NAMES = ["a cat", "a dog", "a pizza"]
EYE = np.eye(3) * 0.8 + 0.1
TOKENS = ["start", "a", "cat", "end"] + ["padding"] * 22

Found = namedtuple("Found", "id caption score image", defaults=[IMAGES[0]])

DRAW = {
    "gallery": lambda: figures.gallery(IMAGES, NAMES, marks=["right", "wrong", ""]),
    "similarity": lambda: figures.similarity(IMAGES, NAMES, EYE, "Cosines", symbols=True),
    "probabilities": lambda: figures.probabilities(IMAGES[0], NAMES, [0.7, 0.29, 0.001], "Which?"),
    "answers": lambda: figures.answers(IMAGES, NAMES, np.eye(3) * 0.97 + 0.01),
    "gap": lambda: figures.gap({"small": (np.eye(5), np.eye(5)), "large": (np.eye(5), np.eye(5)[:1].repeat(5, 0))}),
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
    "codebook": lambda: figures.codebook(
        [Image.new("RGB", (8, 8), name) for name in ("white", "red", "snow")], [4, 1023, 7], columns=2
    ),
    "versus": lambda: figures.versus(
        {"plain": IMAGES, "prior": IMAGES[:2]}, {"plain": ["guide 0.95"] * 3}, ["seed 0", "seed 1"]
    ),
    "reconstructions": lambda: figures.reconstructions(
        [IMAGES[0]], [Image.new("RGB", (32, 32))], NAMES[:1], rows=("before", "after")
    ),
    "patch_map": lambda: figures.patch_map(
        IMAGES[:2], np.stack([np.eye(12), np.full((12, 12), 0.25)]), ["real", "made"]
    ),
    "film": lambda: figures.film(IMAGES, ["step 1, loss 0.74", "step 2, loss 0.50", "step 3"]),
    "painting_curves": lambda: figures.painting_curves(
        [0.9, 0.4, 0.5], {"a cat": [0.1, 0.6, 0.5], "blur": [0.0, 0.3, 0.49]}
    ),
    "sizes": lambda: figures.sizes({"pocket": 7.34e6, "GPT-3": 175e9, "DALL-E": 12e9}, mark="pocket"),
    "towers": lambda: figures.towers(
        IMAGES[0], ["<start_of_text>", "a</w>", "cat</w>", "<end_of_text>"], 64, 256, 0.86
    ),
    "stream": lambda: figures.stream(TOKENS, np.arange(144).reshape(12, 12) * 7, [IMAGES[0]] * 24),
    "causal_mask": lambda: figures.causal_mask(26, 144),
    "next_tokens": lambda: figures.next_tokens(
        ["code 3", "code 17", "code 0"], [0.5, 0.062, 0.0001], IMAGES, "What comes next?"
    ),
    "completion": lambda: figures.completion(IMAGES, given_rows=5, rows=12, captions=["seed 0", "seed 1", "seed 2"]),
    "nearest": lambda: figures.nearest(
        list(zip(IMAGES[:2], IMAGES[1:], strict=True)), [0.031, 0.09], np.linspace(0.04, 0.14, 51), threshold=0.05
    ),
    "dalle2_parts": lambda: figures.dalle2_parts(),
    "cluster_build": lambda: figures.cluster_build(),
}
SAYS = {
    "gallery": "a dog (wrong)",
    "similarity": "picture 2 matches “a dog” best (0.90)",
    "probabilities": "a cat 70%, a dog 29%, a pizza <1%",
    "answers": "picture 2: a cat 1%, a dog 98%, a pizza 1%;",
    "gap": "small: 5 pairs, the modality gap is 0.00, and the mean distance inside a pair 0.00; large: 5 pairs",
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
    "reconstructions": "1 picture (before), and under each what was made of it (after): a cat, error 0.",
    "patch_map": "real: mean verdict 8, its places from 0 to 50; made: mean verdict 25, its places from 25 to 25.",
    "film": "A film of 3 pictures: step 1, loss 0.74; step 2, loss 0.50; step 3.",
    "painting_curves": "loss: from 0.90 to 0.50, lowest 0.40, highest 0.90; a cat: from 0.10 to 0.50",
    "sizes": "pocket: 7.34 million (marked); GPT-3: 175 billion; DALL-E: 12 billion.",
    "towers": "A text of 4 tokens (start of text, a, cat, end of text) → text tower → 256 numbers. Both",
    "stream": "1 to 26: start, a, cat, end, and padding 22 times; picture: 144 codes, at places 27 to 170: 0, 7, 14,",
    "causal_mask": "picture looks at caption: 3,744 pairs; picture looks at picture: 10,440 pairs; never",
    "next_tokens": "What comes next?: code 3 50%, code 17 6.2%, code 0 <0.1%; all others together 44%.",
    "completion": "3 pictures: the upper 5 of 12 rows of codes are given, the other 7 are drawn: seed 0; seed 1;",
    "nearest": "1: 0.031; picture 2: 0.090; 1 of 2 are nearer than the threshold 0.050. Of 51 training scenes",
    "dalle2_parts": "prior (trained) → CLIP image embedding → diffusion decoder 64×64 (trained) → upsampler 256×256",
    "cluster_build": "→ driver lists them → three workers, each with a CLIP of its own, embed parts of the list →",
}


@functools.cache
def drawn(draw: Callable[[], figures.Picture]) -> tuple[figures.Picture, Figure]:
    """A figure drawn once for all tests that look at it: the finished picture, and matplotlib's figure behind it."""
    behind, save = [], Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Figure, "savefig", lambda self, *given, **named: (behind.append(self), save(self, *given, **named))
        )
        return draw(), *behind


@pytest.mark.parametrize("name", list(DRAW))
def test_a_picture_and_its_words(name):
    picture, _ = drawn(DRAW[name])
    image = Image.open(io.BytesIO(picture.png))
    assert image.format == "PNG" and image.width > 200 and image.height > 100
    assert len(picture.png) < 200_000 and image.width <= 1200, "too much for a page"
    assert len(image.convert("RGB").getcolors(100_000)) > 5, "an empty picture"
    assert SAYS[name] in picture.alt
    data = picture._repr_mimebundle_()
    assert set(data) == {"text/html", "text/plain"} and data["text/plain"] == picture.alt
    [(address, alt)] = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', data["text/html"])
    assert base64.b64decode(address) == picture.png and html.unescape(alt) == picture.alt


def test_a_caption_keeps_its_lines():
    """Two answers under one picture stay apart, in the figure and in its words."""
    one, two = (figures.gallery(IMAGES[:1], [caption]) for caption in ("a cat a dog", "a cat\na dog"))
    assert one.image().tobytes() != two.image().tobytes()
    assert two.alt == "1 picture: a cat, a dog."


def test_a_figure_of_photographs_is_shown_as_webp():
    """As PNG, a few such figures would fill a notebook."""
    photos = world.photos("skimage")
    picture = figures.gallery([photo.image for photo in photos], [photo.label for photo in photos], columns=5)
    [(address, alt)] = re.findall(
        r'<img src="data:image/webp;base64,([^"]+)" alt="([^"]+)"', picture._repr_mimebundle_()["text/html"]
    )
    shown = base64.b64decode(address)
    assert Image.open(io.BytesIO(shown)).format == "WEBP" and len(shown) < len(picture.png) / 2
    assert Image.open(io.BytesIO(shown)).size == picture.image().size and html.unescape(alt) == picture.alt


def test_the_same_picture_twice():
    assert DRAW["similarity"]().png == DRAW["similarity"]().png


WIDE = Image.new("RGB", (240, 120), "white")
WIDE.paste("#ffd700", (90, 30, 150, 90))  # a square in the middle
NOT_SQUASHED = {
    "gallery": lambda: figures.gallery([WIDE, IMAGES[0]], NAMES[:2], columns=2),
    "similarity": lambda: figures.similarity([WIDE, IMAGES[0]], NAMES[:2], np.eye(2)),
    "probabilities": lambda: figures.probabilities(WIDE, NAMES, [0.7, 0.2, 0.1]),
    "answers": lambda: figures.answers([WIDE, IMAGES[0]], NAMES, np.eye(3)[:2]),
    "hits": lambda: figures.hits({"a square": [Found(0, "a square", 0.91, WIDE)]}, columns=2),
    "versus": lambda: figures.versus({"one": [WIDE, IMAGES[0]]}),
    "reconstructions": lambda: figures.reconstructions([WIDE], [IMAGES[0]], NAMES[:1]),
    "film": lambda: figures.film([WIDE, IMAGES[0]], ["step 1", "step 2"]),
    "patch_map": lambda: figures.patch_map([WIDE], np.eye(12)[None], ["wide"]),
    "codes_over": lambda: figures.codes_over(WIDE, np.ones((6, 12), dtype=int)),
    "nearest": lambda: figures.nearest([(WIDE, IMAGES[0])], [0.1], [0.2, 0.3], threshold=0.05),
}


@pytest.mark.parametrize("name", list(NOT_SQUASHED))
def test_a_square_stays_a_square_in_a_wide_picture(name):
    gold = ink(NOT_SQUASHED[name]().image(), "#ffd700", 40)
    gold = gold[:, : gold.any(axis=0).nonzero()[0][0] + gold.shape[1] // 3]  # the first, where it is shown twice
    height, width = (len(gold.any(axis=side).nonzero()[0]) for side in (1, 0))
    assert width > 8 and abs(height - width) <= 2 + 0.05 * width


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


def test_equal_names_keep_their_bars_where_they_lean():
    two = figures.leaning(["same", "same"], [0.2, -0.1], "a man", "a woman")
    assert "same -0.10, same +0.20" in two.alt
    assert ink(two.image(), figures.ORANGE).any() and ink(two.image(), figures.BLUE).any()


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
    for picture, (_, image) in zip(pictures, shown, strict=True):
        assert np.abs(np.asarray(image).astype(int) - np.asarray(picture)).mean() < 12
    assert (animation.width, animation.height) == (144, 144)

    data, metadata = animation._repr_mimebundle_()
    assert set(data) == {"text/html", "image/png", "text/plain"} and data["text/plain"] == animation.alt
    assert 'alt="A &quot;square&quot; crosses &amp; stays" width="144" height="144"' in data["text/html"]
    assert base64.b64decode(re.search(r"data:image/gif;base64,([^\"]+)", data["text/html"])[1]) == animation.gif
    assert metadata["image/png"] == {"alt": animation.alt, "width": 144, "height": 144}
    last = Image.open(io.BytesIO(data["image/png"])).convert("RGB")
    assert np.abs(np.asarray(last).astype(int) - np.asarray(pictures[-1])).mean() < 6, (
        "where nothing moves, the last picture"
    )


def test_an_animation_keeps_within_its_size():
    noise = [
        Image.fromarray(each) for each in np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), dtype=np.uint8)
    ]
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
        "from mmlesson.teach import figures\n"
        "frames = [Image.new('RGB', (16, 16), colour) for colour in ('red', 'white', 'blue')]\n"
        "figures.animation(frames, 'Red, white and blue')"
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


# ------------------------------------------------------------------------------------------- streams


def ink(image, colour, most=12):
    """Where a picture has a colour: bool [height, width]."""
    return np.abs(np.asarray(image).astype(int) - [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).sum(-1) < most


def test_sizes_stand_on_a_logarithmic_axis():
    """Equal ratios are equal lengths: 10 and 100 are as far apart as 100 and 1000."""
    mask = ink(figures.sizes({"a": 1e6, "b": 1e7, "c": 1e8}).image(), figures.BLUE)
    ends = sorted({row.nonzero()[0][-1] for row in mask if row.sum() > 40})
    assert len(ends) == 3 and abs((ends[2] - ends[1]) - (ends[1] - ends[0])) <= 1


@pytest.mark.parametrize(
    "number, words",
    [(7_342_080, "7.34 million"), (12e9, "12 billion"), (999_900_000, "1 billion"), (1000, "1 thousand"), (999, "999")],
)
def test_numbers_in_words(number, words):
    assert f"it: {words}." in figures.sizes({"it": number}).alt


def test_the_marked_size_is_outlined():
    values = {"ours": 7e6, "theirs": 12e9}
    assert ink(figures.sizes(values, "ours").image(), figures.MARK).any()
    assert not ink(figures.sizes(values).image(), figures.MARK).any()


def test_a_stream_says_what_it_leaves_out():
    codes = np.arange(144) * 7
    short, whole = figures.stream(TOKENS, codes, shown=30), figures.stream(TOKENS, codes, shown=144)
    assert short.alt.endswith("196, 203, and 114 more.")
    assert whole.alt.endswith("994, 1001.") and len(whole.png) < 200_000
    assert whole.image().height > short.image().height


def test_a_stream_has_a_line_of_codes_for_each_row_of_the_picture():
    """Rows of a grid of 6 by 6, or 12 a line where no grid is told: the same 24 codes, four lines or two."""
    codes = np.arange(36)
    heights = [figures.stream(TOKENS[:4], each).image().height for each in (codes.reshape(6, 6), codes)]
    assert heights[0] > heights[1]


def test_the_tiles_of_a_stream_are_seen():
    gold = Image.new("RGB", (8, 8), "#ffd700")
    picture = figures.stream(["start", "end"], [5, 6, 7], [gold, gold, gold]).image()
    columns = ink(picture, "#ffd700", 24).any(axis=0).astype(int)
    assert (np.diff(columns) == 1).sum() == 3


def test_the_mask_is_filled_below_its_diagonal():
    """3 + 5 tokens: half of the pairs, and the diagonal, are shaded; nothing to the right of the diagonal is."""
    picture = figures.causal_mask(3, 5)
    assert "36 of 64 pairs" in picture.alt and "never: what has not been said yet: 28 pairs" in picture.alt
    pixels = picture.image()
    shaded = sum(ink(pixels, colour) for colour in figures.PALE.values()) > 0
    rows, columns = shaded.any(axis=1).nonzero()[0], shaded.any(axis=0).nonzero()[0]
    cells = [
        np.linspace(each[0], each[-1], 17).astype(int)[1::2] + 7 for each in (rows, columns)
    ]  # beside the middles, off most words
    found = np.array([[shaded[y - 3 : y + 4, x - 3 : x + 4].mean() > 0.3 for x in cells[1]] for y in cells[0]])
    assert not np.triu(found, 1).any() and np.diag(found).all()
    assert found.sum() >= 33, "words may hide a few cells"


def test_next_tokens_scale_with_the_likeliest_and_keep_equal_names():
    """The bar of the likeliest is as long at 2 % as at 90 %; two tokens of one name have two bars."""
    lengths = [
        ink(figures.next_tokens(["a", "b"], [p, p / 2]).image(), figures.MARK).any(axis=0).sum() for p in (0.02, 0.6)
    ]
    assert lengths[0] == lengths[1] > 300
    assert bars(figures.next_tokens(["a", "a"], [0.52, 0.48])) == 2
    assert "others" not in figures.next_tokens(["a", "b"], [0.6, 0.4]).alt


def test_the_border_of_a_completion_lies_where_the_given_rows_end():
    white = Image.new("RGB", (96, 96), "white")
    for given in (3, 9):
        mask = ink(figures.completion([white, white], given, 12).image(), figures.MARK)
        rows = (mask.sum(axis=1) > 0.4 * mask.shape[1]).nonzero()[0]  # the upper edge, and the dashed border
        frame = mask[:, mask.shape[1] * 3 // 4 :].any(axis=1).nonzero()[0]
        side = rows[-1] - rows[0]
        assert abs(frame[-1] - rows[-1]) <= 1
        assert side == pytest.approx(figures.completion([white, white], 6, 12).image().height * given / 12, rel=0.12)


def test_the_original_of_a_completion_stands_apart():
    """Fault: the word "drawn" stood beside a picture of which nothing was drawn, and that picture was marked so too."""
    white, gold = Image.new("RGB", (96, 96), "white"), Image.new("RGB", (96, 96), "#ffd700")
    picture = figures.completion([white] * 4, 6, 12, ["a", "b", "c", "d"], original=gold)
    assert picture.alt.startswith("The original, and beside it 4 pictures: the upper 6 of 12 rows")
    image = picture.image()
    original = ink(image, "#ffd700", 24).any(axis=0).nonzero()[0]
    marked = ink(image, figures.MARK).any(axis=0).nonzero()[0]
    assert original.size > 150 and marked.size > 600 and original[-1] + 10 < marked[0]
    assert image.width <= 1200


def test_captions_of_many_columns_are_as_large_as_those_of_five():
    """Fault: eight columns made a figure of 1,880 pixels, which a page shrinks to half, and its captions with it."""
    widths = [figures.gallery(IMAGES * 6, NAMES * 6, columns=columns).image().width for columns in (5, 6, 8)]
    assert max(widths) <= widths[0] == 1175


def test_pictures_of_several_shapes_stand_in_boxes_of_one_size():
    """Then the words of a row stand at one height."""
    wide, tall, square = (Image.new("RGB", size) for size in ((100, 50), (30, 60), (80, 80)))
    assert style.box_of([wide, tall]) == (1, 1) and style.box_of([wide, wide]) == (1, 0.5)
    assert style.box_of([]) == (1, 1)
    figure = style.new_figure(6, 2)
    rows = [figure.add_subplot(1, 3, place) for place in (1, 2, 3)]
    for axes, image in zip(rows, (wide, tall, square), strict=True):
        style.show_in_box(axes, image, (1, 1))
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        assert right - left == bottom - top == max(image.size), "a square, in pixels of the picture"
        assert (left + right, bottom + top) == (image.width - 1, image.height - 1), "the picture is in its middle"
    figure.canvas.draw()
    assert len({(round(box.y0, 3), round(box.y1, 3)) for box in (axes.get_position() for axes in rows)}) == 1


def test_a_single_picture_has_no_empty_places_beside_it():
    one, four = (figures.gallery(IMAGES[:1] * n, NAMES[:1] * n).image() for n in (1, 4))
    assert one.height == four.height and one.width == four.width // 4


@pytest.mark.filterwarnings("error")  # matplotlib warns where the words leave no room
@pytest.mark.parametrize("columns", [1, 4, 8])
def test_a_long_caption_leaves_room_for_the_picture(columns):
    gold = Image.new("RGB", (96, 96), "#ffd700")
    image = figures.gallery([gold] * columns, ["many words " * 20] * columns, columns, [NAMES[1] * 9] * columns).image()
    assert ink(image, "#ffd700", 24).any(axis=1).sum() > 0.8 * 100 * min(2.35, 11.75 / columns)


def test_nearest_marks_what_may_be_a_copy():
    far = figures.nearest([IMAGES[:2]], [0.9], [0.5, 0.6, 0.7], threshold=0.2)
    assert "0 of 1 are nearer than the threshold 0.200" in far.alt
    assert "Of 3 training scenes, the distance to their own nearest has the median 0.600, and 0% are nearer" in far.alt
    near = figures.nearest([IMAGES[:2]], [0.1], [0.5, 0.6, 0.7], threshold=0.2)
    assert "1 of 1 are nearer" in near.alt


def test_the_parts_of_dalle_2_in_their_order():
    alt = figures.dalle2_parts().alt
    order = ["text", "CLIP text tower (frozen)", "CLIP text embedding", "prior (trained)", "CLIP image embedding"]
    order += [
        "diffusion decoder 64×64 (trained)",
        "upsampler 256×256 (trained)",
        "upsampler 1024×1024 (trained)",
        "picture",
    ]
    assert f"DALL-E 2: {' → '.join(order)}." in alt
    assert "DALL-E 1: caption tokens → one transformer (trained) → codes → dVAE decoder (frozen) → picture." in alt


@pytest.mark.parametrize(
    "draw, says",
    [
        (lambda: figures.versus({}), "at least one picture"),
        (lambda: figures.versus({"a": IMAGES}, {"b": NAMES}), "no such row among a"),
        (lambda: figures.versus({"a": IMAGES}, {"a": NAMES[:2]}), "3 pictures and 2 marks"),
        (lambda: figures.versus({"a": IMAGES[:2]}, columns=NAMES), "3 headings and only 2 columns"),
        (lambda: figures.gallery(IMAGES, NAMES[:2]), "argument 2 is shorter"),
        (lambda: figures.sizes({}), "one or more"),
        (lambda: figures.sizes({"none": 0}), "above 0"),
        (lambda: figures.sizes({"GPT-2": 1.5e9}, mark="GPT-3"), "no 'GPT-3' among GPT-2"),
        (lambda: figures.stream(TOKENS, range(144), IMAGES), "24 codes are shown, and there are 3 tiles"),
        (lambda: figures.towers(IMAGES[0], [], 64, 256), "at least one token"),
        (lambda: figures.causal_mask(26, 0), "at least one token of text and one code"),
        (lambda: figures.next_tokens(["a", "b"], [1.0]), "one name, one probability"),
        (lambda: figures.next_tokens(["a", "b"], [0.6, 0.4], IMAGES), "one tile"),
        (lambda: figures.completion(IMAGES, 12, 12), "1 to 11 given rows, not 12"),
        (lambda: figures.completion([], 3, 12), "has pictures"),
        (lambda: figures.completion(IMAGES, 3, 12, ["one"]), "as many captions"),
        (lambda: figures.nearest([IMAGES[:2]], [0.1, 0.2], [0.3], 0.2), "1 pairs of pictures need as many distances"),
    ],
)
def test_no_figure_of_what_makes_no_sense(draw, says):
    with pytest.raises(ValueError, match=says):
        draw()
