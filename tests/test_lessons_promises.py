"""What the lessons promise to readers: how long they run, words for every picture, and figures that were measured."""

import inspect
import json
import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from mmlesson.measure.drawing import evaluate_dalle
from mmlesson.painter import PaintOptions
from mmlesson.search.hits import Hit, Hits
from mmlesson.teach import figures

ROOT = Path(__file__).resolve().parent.parent
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MEASURED = json.loads((ROOT / "data" / "measured" / "bench_lessons.json").read_text(encoding="utf8"))["figures"]
OTHERWISE = "No description has been provided"  # what nbconvert writes where a picture has no alternative


# ------------------------------------------------------------------------------------------ alternatives


def plain_page(notebook) -> BeautifulSoup:
    """What `jupyter nbconvert --to html` makes of a notebook, with none of the course's help."""
    text, _ = HTMLExporter().from_notebook_node(notebook)
    return BeautifulSoup(text, "html.parser")


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_plain_nbconvert_says_what_each_picture_shows(path):
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    inside = [output for output in outputs if "<img" in output.data.get("text/html", "")]
    bare = [output for output in outputs if any(kind.startswith("image/") for kind in output.data)]
    assert not [output for output in bare if output not in inside], "nbconvert shows an image/… without its words"
    pictures = plain_page(notebook)("img")
    assert len(pictures) >= len(inside) >= 10
    assert not [each for each in pictures if not each.get("alt", "").strip() or OTHERWISE in each["alt"]]
    for output in inside:
        first = BeautifulSoup(output.data["text/html"], "html.parser").img["alt"]
        assert len(first) > 3 and first in {each["alt"] for each in pictures}


def test_each_kind_of_picture_brings_its_words():
    red = Image.new("RGB", (16, 16), "red")
    shown = [
        figures.gallery([red], ['a "red" square & <nothing>']),
        figures.animation([red, red], 'A "red" square that <rests>'),
        Hits([Hit(None, 0.9, "a red square", 0, SimpleNamespace(image=lambda hit: red))]),
    ]
    cells = []
    for each in shown:
        if hasattr(each, "_repr_mimebundle_"):
            bundle = each._repr_mimebundle_()
            data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        else:
            data, metadata = {"text/html": each._repr_html_(), "text/plain": repr(each)}, {}
        data = {kind: value for kind, value in data.items() if isinstance(value, str)}
        cells.append(new_code_cell("x", outputs=[new_output("display_data", data=data, metadata=metadata)]))
    alternatives = [each["alt"] for each in plain_page(new_notebook(cells=cells))("img")]
    assert alternatives == [shown[0].alt, shown[1].alt, "a red square"]
    assert alternatives[0] == '1 picture: a "red" square & <nothing>.'


# ------------------------------------------------------------------------------------------ outputs of spaces


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_no_output_is_only_spaces(path):
    """An erased progress line would stand as an empty pink band."""
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                assert output.text.strip(), cell.source
                assert "\r" not in output.text, cell.source


# ------------------------------------------------------------------------------------------ durations

NUMBERS = {"half a": 0.5, "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
UNITS = {"second": 1, "minute": 60, "hour": 3600}
ABOUT = 4 / 3  # "about a minute" is 45 to 80 seconds


def promised(words: str) -> tuple[float, float]:
    """Seconds from … to of "about half a minute", "70 seconds", "one to two minutes"."""
    number = rf"({'|'.join(sorted(NUMBERS, key=len, reverse=True))}|\d+)"
    found = re.fullmatch(rf"(?:about )?(?:{number} to )?{number} (second|minute|hour)s?", words)
    assert found, f"no duration that this test can read: {words!r}"
    low, high = (NUMBERS.get(each) or float(each) for each in (found[1] or found[2], found[2]))
    return low * UNITS[found[3]], high * UNITS[found[3]]


def keeps(words: str, seconds: float) -> bool:
    low, high = promised(words)
    return low / ABOUT <= seconds <= high * ABOUT


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_takes_as_long_as_it_says(path):
    """And no more memory: as `mmlesson bench lessons` measured it."""
    first = nbformat.read(path, as_version=4).cells[0].source
    [words] = re.findall(r"`([^`]*) to run(?: on two cores)?, [^`]* to read`", first)
    seconds = MEASURED[f"{path.stem}_seconds"]
    assert keeps(words, seconds), f"{path.stem} says {words!r}, and {seconds:.0f} seconds were measured"
    [gigabytes] = re.findall(r"`under (\d+) GB of memory`", first)
    assert MEASURED[f"{path.stem}_peak_memory_gb"] < float(gigabytes)


def test_the_readme_says_how_long_a_lesson_takes():
    [words] = re.findall(r"A\s+lesson\s+runs\s+in\s+([^,.]*)", (ROOT / "README.md").read_text(encoding="utf8"))
    longest = max(MEASURED[f"{path.stem}_seconds"] for path in LESSONS)
    assert keeps(" ".join(words.split()), longest), f"README: {words!r}; the longest lesson took {longest:.0f} seconds"


@pytest.mark.parametrize(
    "words, seconds, kept",
    [
        ("about half a minute", 30, True),
        ("about half a minute", 52, False),
        ("about a minute", 61, True),
        ("about a minute", 32, False),
        ("one to two minutes", 32, False),
        ("one to two minutes", 100, True),
        ("70 seconds", 52, False),
        ("two minutes", 200, False),
    ],
)
def test_promises_are_read(words, seconds, kept):
    assert keeps(words, seconds) is kept


# ------------------------------------------------------------------------------------------ figures in the prose

CARD = (ROOT / "data" / "models" / "pocket-dalle" / "README.md").read_text(encoding="utf8")


def stored(part: str, figure: str) -> float:
    """A figure of a stored table, such as "eval dalle"; tests/test_measured.py holds the tables fresh."""
    path = ROOT / "data" / "measured" / f"{part.replace(' ', '_')}.json"
    return json.loads(path.read_text(encoding="utf8"))["figures"][figure]


def setting(temperature: float, guidance: float) -> float:
    """The share of objects that the card of the pocket DALL-E gives for a temperature and a guidance."""
    [share] = re.findall(rf"^\| {temperature} \| {guidance} \| (\d\.\d+) \|", CARD, re.MULTILINE)
    return float(share)


def titled(part: str) -> list[int]:
    """The numbers in the title of a stored table: of "72 paintings of 24 held-out prompts" 72 and 24."""
    path = ROOT / "data" / "measured" / f"{part.replace(' ', '_')}.json"
    return [int(each) for each in re.findall(r"\d+", json.loads(path.read_text(encoding="utf8"))["title"])]


SHARES = [  # what the prose of a lesson says around a share, and the share that was measured
    ("04_dalle", r"named the object right in (\S+) % of the paintings", stored("eval paint", "judge_top1")),
    ("04_dalle", r"and in (\S+) % of DALL-E's drawings", stored("eval dalle", "object_top1")),
    ("04_dalle", r"(\S+) % of these pictures are nearer than the threshold", stored("eval dalle", "copies")),
    ("04_dalle", r"named (\S+) % of the objects right at guidance 3", setting(0.5, 3.0)),
]
COUNTS = [  # the same with whole numbers
    ("04_dalle", r"the paintings \((\d+) paintings, three for each of (\d+) prompts", titled("eval paint")),
    ("04_dalle", r"DALL-E's drawings \((\d+), one for each prompt", titled("eval dalle")[:1]),
    ("04_dalle", r"`mmlesson eval dalle` compares (\d+) pictures", [sum(titled("eval dalle"))]),
    ("04_dalle", r"pictures with (\S+) scenes", [inspect.signature(evaluate_dalle).parameters["n_scenes"].default]),
    ("04_dalle", r"steps here, so that the cell ends soon. Its default is (\d+)", [PaintOptions().steps]),
    (
        "04_dalle",
        r"\| captioned pictures \| (\S+) \|",
        [int(re.search(r"^(\S+) scenes", CARD, re.M)[1].replace(",", ""))],
    ),
]


def prose_of(lesson: str) -> str:
    cells = nbformat.read(ROOT / "notebooks" / f"{lesson}.ipynb", as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("lesson, words, share", SHARES)
def test_a_share_in_the_prose_is_the_one_that_was_measured(lesson, words, share):
    [said] = re.findall(words, prose_of(lesson))
    digits = len(said.partition(".")[2])
    assert said == f"{100 * share:.{digits}f}"


@pytest.mark.parametrize("lesson, words, counts", COUNTS)
def test_a_count_in_the_prose_is_the_one_that_was_measured(lesson, words, counts):
    [found] = re.finditer(words, prose_of(lesson))
    assert [int(each.replace(",", "")) for each in found.groups()] == counts


def test_guidance_1_named_all():
    assert "at guidance 3, and all at 1" in prose_of("04_dalle") and setting(0.5, 1.0) == 1
