"""The command `mmlesson`: doctor, lab, lessons, slides, student, grade, online, site, search, index, paint, draw,
train, eval, bench, models, download, measured, world.

This file reads the command line; `commands.py` and the rooms do the work. Every number and every place of a result
passes a gate here, before the work begins: a bad one is one sentence on stderr and exit status 2. An error that the
course foresees is one sentence and exit status 1, not a traceback.
"""

from __future__ import annotations

import argparse
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import mmlesson
from mmlesson import classroom, gates, indexing, photo_folder, terminal, words
from mmlesson.commands import run_doctor, run_draw, run_lab, run_lessons, run_paint, run_search, run_slides, run_world
from mmlesson.models import assets

T = TypeVar("T")
NO_MEMORY = re.compile("can't allocate memory|not enough memory|out of memory", re.IGNORECASE)  # in words of torch


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (None: that of this process); returns the exit status."""
    terminal.prepare()
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # here, where an error of it becomes a sentence; also after --help
    except OSError as error:
        if not terminal.is_lost(error):
            raise
        if not isinstance(error, BrokenPipeError):  # `mmlesson … | head` is no mistake
            print(f"mmlesson: what it prints could not be written ({gates.reason(error)}).", file=sys.stderr)
        return 1


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    try:
        with terminal.warnings_as_sentences():
            return options.run(options) or 0
    except KeyboardInterrupt as stop:
        print(f"\nstopped. {stop}".rstrip(), file=sys.stderr)  # the work may say what it kept
        return 130
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        sentence = LONG.sub(r"\1…", words.escaped(sentence))  # a name of thousands of letters hides what is said of it
        print(f"mmlesson: {sentence}", file=sys.stderr)
        return 1


def _sentence(error: Exception) -> str | None:
    """The sentence for an error that the course foresees; None for a bug, which needs its traceback."""
    if isinstance(error, gates.AssetError):
        return str(error)
    place = gates.of_a_place(error)
    if place is not None:
        return place
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("mmlesson"):
        return f"the package {error.name} is not installed: `mmlesson doctor` says what is missing and how to fix it."
    if type(error) is ImportError and not _raised_by_us(error):  # also where the system gives it no memory
        return f"a package cannot be loaded ({words.without_places(str(error))}): `mmlesson doctor` says how to fix it."
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_MEMORY.search(str(error))):
        return "there is not enough memory for this: close other programs, or ask for less at once."
    if isinstance(error, RuntimeError) and "torchvision::nms" in str(error):
        return "torchvision does not match torch: `mmlesson doctor` says how to fix it."
    # libraries raise these two as well, in words that do not help a learner
    if isinstance(error, (ValueError, FileNotFoundError)) and _raised_by_us(error) and str(error):
        return str(error)
    return None


def _raised_by_us(error: Exception) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and assets.PACKAGE in Path(frames[-1].filename).resolve().parents


# ------------------------------------------------------------------------------------------- options


def _parser() -> terminal.Parser:
    parser = terminal.Parser(prog="mmlesson", description="A course on models that join pictures and words.")
    parser.add_argument("--version", action="version", version=f"mmlesson {mmlesson.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    doctor = commands.add_parser("doctor", help="check whether the lessons run here, and say how to fix what is wrong")
    doctor.add_argument("--json", action="store_true", help="print one JSON object instead of sentences")
    doctor.set_defaults(run=run_doctor)

    lab = commands.add_parser("lab", help="open the lessons in JupyterLab")
    lab.add_argument("--no-browser", action="store_true", help="print the address instead of opening a browser")
    lab.add_argument("--folder", type=_folder, metavar="DIR", help="your own copies; default: ./mmlesson-lessons")
    lab.add_argument("--fresh", action="store_true", help="start the lessons anew; your copies are kept aside")
    lab.add_argument("--present", action="store_true", help="for a class: large type, no solutions, stored results")
    lab.set_defaults(run=run_lab)

    lessons = commands.add_parser("lessons", help="execute the lessons and write them as web pages")
    lessons.add_argument("--out", type=_folder, default="build/lessons", metavar="DIR", help="default: build/lessons")
    lessons.add_argument("--only", metavar="LESSON", help="one lesson, such as 01_clip")
    lessons.add_argument("--write-back", action="store_true", help="also save the outputs in the notebooks themselves")
    lessons.set_defaults(run=run_lessons)

    slides = commands.add_parser("slides", help="write the lessons as slides that open without a network")
    slides.add_argument("--out", type=_folder, default="build/slides", metavar="DIR", help="default: build/slides")
    slides.add_argument("--only", metavar="LESSON", help="one lesson, such as 01_clip")
    slides.set_defaults(run=run_slides)

    classroom.options(
        commands,
        classroom.Gates(_path, _folder, _file(".csv"), _number(above=0, most=1e5), _number(least=1, most=1000)),
    )
    _search_options(commands)
    indexing.options(commands, _refusing, _whole(1, 100_000))
    _paint_options(commands)
    _draw_options(commands)

    train = _models(
        commands,
        "train",
        "train a pocket model",
        _train,
        ("clip", "judge", "vqgan", "prior", "guide", "dalle", "photos", "familiar"),
    )
    for recipe in train:
        if recipe.get_default("model_kind") == "familiar":
            _familiar_options(recipe)
            continue
        length = recipe.add_mutually_exclusive_group()
        length.add_argument(
            "--minutes",
            type=_number(above=0, most=1e6),
            metavar="M",
            default=120.0,
            help="train so long in all; default: 120",
        )
        length.add_argument(
            "--steps", type=_whole(1, 10**9), metavar="N", help="train so many steps in all, instead of minutes"
        )
        recipe.add_argument(
            "--out", type=_folder, metavar="DIR", help="where the finished model goes; default: a folder in build/"
        )
        recipe.add_argument(
            "--state", type=_folder, metavar="DIR", help="where checkpoints and log go; default: in the cache"
        )
        recipe.add_argument(
            "--fresh", action="store_true", help="delete the checkpoint and start again; default: go on from it"
        )
        recipe.add_argument(
            "--workers", type=_whole(0, 64), metavar="N", help="processes that render scenes; default: 1"
        )
        seed = 1 if recipe.get_default("model_kind") == "judge" else 0
        recipe.add_argument("--seed", type=_whole(0, LARGEST_SEED), help=f"a whole number from 0; default: {seed}")
        recipe.add_argument("--device", metavar="NAME", help="cpu, cuda or mps; default: the best one here")
        if recipe.get_default("model_kind") == "photos":
            recipe.add_argument("--data", required=True, type=_captioned, metavar="FOLDER", help=CAPTIONED)

    sizes = {"clip": 500, "judge": 500, "search": 1000, "vqgan": 2000, "paint": 24, "dalle": 200}
    for measure in _models(
        commands, "eval", "measure a pocket model on held-out data", _measure, (*sizes, "photos", "all")
    ):
        part = measure.get_default("model_kind")
        measure.set_defaults(command="eval", part=part, model=None, n=sizes.get(part))
        measure.set_defaults(pictures=None, sheet=None, settings=False)
        if part == "photos":
            measure.set_defaults(write=False)
            measure.add_argument("--data", required=True, type=_captioned, metavar="FOLDER", help=CAPTIONED)
            measure.add_argument("--json", action="store_true", help="end with one line of JSON")
            measure.add_argument("--model", metavar="NAME_OR_DIR", help="default: photo-clip")
            continue
        measure.add_argument("--write", action="store_true", help="keep the figures in data/measured/")
        if part == "all":
            measure.set_defaults(json=False)
            continue
        measure.add_argument("--json", action="store_true", help="end with one line of JSON")
        measure.add_argument("--model", metavar="NAME_OR_DIR", help="default: the pocket model of the course")
        what = {"paint": "prompts", "dalle": "prompts (with --settings: training prompts) of each kind"}.get(
            part, "scenes of each kind"
        )
        measure.add_argument(
            "--n",
            type=_whole(1, 100_000),
            default=sizes[part],
            help=f"how many held-out {what}; default: {sizes[part]}",
        )
        if part in ("paint", "dalle"):
            measure.add_argument(
                "--pictures", type=_folder, metavar="DIR", help="where the pictures go; default: they are not kept"
            )
        if part == "paint":
            named = "where the pictures go, numbered on one sheet, with a key, for people to say what they show"
            measure.add_argument("--sheet", type=_folder, metavar="DIR", help=named)
        if part == "dalle":
            measure.add_argument(
                "--settings",
                action="store_true",
                help="instead: compare temperatures and guidances on training prompts, without the judge",
            )

    speeds = ("clip", "search", "scale", "paint", "dalle", "lessons", "all")
    for speed in _models(commands, "bench", "measure the speed against a peer", _measure, speeds):
        part = speed.get_default("model_kind")
        speed.set_defaults(command="bench", part=part, json=False)
        if part != "all":
            speed.add_argument("--json", action="store_true", help="end with one line of JSON")
        speed.add_argument("--write", action="store_true", help="keep the figures in data/measured/")

    _models_options(commands)

    measured = commands.add_parser("measured", help="the stored figures: which are stale; or all of them as one page")
    measured.add_argument(
        "--write", type=_file(".md"), metavar="FILE", help="write the page of all tables: MEASURED.md"
    )
    measured.set_defaults(run=_measured)

    world = commands.add_parser("world", help="draw a sheet of scenes of the pocket world")
    world.add_argument("--sheet", type=_file(*PICTURES), default="world.png", metavar="FILE", help="default: world.png")
    world.add_argument("--seed", type=_whole(0, LARGEST_SEED), default=0, help="default: 0")
    world.set_defaults(run=run_world)
    return parser


def _familiar_options(recipe: argparse.ArgumentParser) -> None:
    recipe.add_argument("--data", required=True, type=_captioned, metavar="FOLDER", help=CAPTIONED)
    recipe.add_argument("--model", choices=("pocket-clip", "photo-clip"), help="default: both")
    recipe.add_argument(
        "--out", type=_folder, metavar="DIR", help="where the statistics go; default: beside the weights"
    )
    recipe.add_argument("--seed", type=_whole(0, LARGEST_SEED), default=0, help="default: 0")
    recipe.set_defaults(run=_familiar)


def _models_options(commands) -> None:
    models = commands.add_parser("models", help="list the models here, and the CLIPs that can be downloaded by name")
    models.add_argument("words", nargs="?", default="", metavar="WORD", help="only names that hold this: siglip2")
    models.add_argument("--all", action="store_true", help="all names that open_clip knows")
    models.add_argument("--folder", type=_path, default=".", metavar="FOLDER", help="also list model folders in it")
    models.set_defaults(run=_list_models)

    download = commands.add_parser("download", help="fetch a CLIP into a folder, for machines without a network")
    download.add_argument("name", metavar="NAME", help="one of `mmlesson models`: MobileCLIP2-S0/dfndr2b")
    download.add_argument("--to", required=True, type=_folder, metavar="DIR", help="a folder that is new or empty")
    download.set_defaults(run=_download)


def _search_options(commands) -> None:
    search = commands.add_parser(
        "search",
        help="find pictures in a folder by a sentence",
        description="Find the pictures in a folder that fit a sentence best. The folder is indexed the first time; "
        "later only what has changed. The index lives in the cache. The exit status is 1 if nothing fits.",
    )
    search.add_argument("folder", type=_path, metavar="FOLDER", help="the pictures, with all folders below")
    search.add_argument("query", nargs="*", metavar="SENTENCE", help="what the picture shows; several are added")
    search.add_argument("-k", type=_whole(1, 10_000), default=10, metavar="N", help="how many to find; default: 10")
    search.add_argument(
        "--like", type=_path, action="append", default=[], metavar="PICTURE", help="also similar to this picture"
    )
    search.add_argument(
        "--minus", action="append", default=[], metavar="SENTENCE", help="less of this (its weight is -0.5)"
    )
    search.add_argument(
        "--where", metavar="SQL", help="a filter on path, size, modified, sha256, caption: \"path LIKE '2026/%%'\""
    )
    search.add_argument("--min-score", type=_number(least=-1, most=1), metavar="X", help="only cosines of at least X")
    search.add_argument("--model", metavar="NAME", help="the CLIP; default: MMLESSON_CLIP, or photo-clip")
    search.add_argument("--open", action="store_true", help="open the best picture in the system's viewer")
    search.add_argument("--json", action="store_true", help="print a list of objects")
    search.add_argument(
        "--grid", type=_file(*PICTURES), metavar="FILE", help="also write all pictures and their scores as one picture"
    )
    search.set_defaults(run=run_search)


def _paint_options(commands) -> None:
    paint = commands.add_parser(
        "paint",
        help="paint a picture from a sentence",
        description="Paint a picture from a sentence with VQGAN+CLIP. Ctrl-C stops early and keeps the picture so far.",
    )
    paint.add_argument(
        "prompt",
        nargs="+",
        metavar="SENTENCE",
        help='what to paint: "a cat on a blue background", or several with weights, "a cat:1 | a dog:-0.5". A weight '
        'is a number after the last colon, at the end. Text are "a clock at 12:30", where the colon is between digits, '
        'and a colon or a bar after a backslash: "a score of\\: 2"',
    )
    paint.add_argument(
        "--out", type=_file(*PICTURES), default="painting.png", metavar="FILE", help="default: painting.png"
    )
    paint.add_argument(
        "--animation", type=_file(".gif", ".mp4"), metavar="FILE", help="also write how it grew, as .gif or .mp4"
    )
    paint.add_argument("--start", type=_path, metavar="PICTURE", help="begin with this picture instead of random codes")
    paint.add_argument("--steps", type=_whole(1, 100_000), metavar="N", help="default: the painter's own")
    paint.add_argument("--seed", type=_whole(0, LARGEST_SEED), default=0, help=SEED)
    paint.add_argument("--threads", type=_whole(1, 256), metavar="N", help=THREADS)
    paint.add_argument(
        "--side", type=_whole(1, 8192), default=384, metavar="PIXELS", help="of the written picture; default: 384"
    )
    paint.add_argument(
        "--model", metavar="NAME", help="the CLIP that guides; default: MMLESSON_CLIP, or the pocket guide"
    )
    paint.set_defaults(run=run_paint)


def _draw_options(commands) -> None:
    draw = commands.add_parser(
        "draw",
        help="draw pictures of a sentence, a code at a time",
        description="Draw pictures of a sentence with DALL-E, code by code, and write them as one sheet.",
    )
    draw.add_argument("prompt", nargs="+", metavar="SENTENCE", help='what to draw: "a cat on a blue background"')
    draw.add_argument(
        "--out", type=_file(*PICTURES), default="drawing.png", metavar="FILE", help="default: drawing.png"
    )
    draw.add_argument("-n", type=_whole(1, 256), default=16, metavar="N", help="how many pictures; default: 16")
    draw.add_argument(
        "--seed",
        type=_whole(0, LARGEST_SEED),
        default=0,
        help=SEED + ". The number of pictures counts too: see --pick",
    )
    draw.add_argument("--threads", type=_whole(1, 256), metavar="N", help=THREADS)
    draw.add_argument(
        "--pick",
        type=_whole(1, 256),
        metavar="I",
        help="draw all -n pictures again, and write only picture I, so that one of a sheet can be had alone",
    )
    draw.add_argument(
        "--temperature",
        type=_number(above=0, most=100),
        metavar="T",
        help="below 1: likely codes are drawn more often; above 1: less often; default: 0.5",
    )
    draw.add_argument("--top-k", type=_whole(1, 100_000), metavar="K", help="draw only from the K likeliest codes")
    draw.add_argument(
        "--top-p",
        type=_number(above=0, most=1),
        metavar="P",
        help="draw only from the likeliest codes whose probabilities add up to P",
    )
    draw.add_argument(
        "--guidance",
        type=_number(least=0, most=100),
        metavar="G",
        help="0: ignore the sentence; 1: follow it; above 1: follow it more strongly; default: 1",
    )
    draw.add_argument("--rerank", action="store_true", help="put the pictures that CLIP finds to fit best first")
    draw.add_argument("--model", metavar="NAME", help="the DALL-E; default: the pocket model")
    draw.set_defaults(run=run_draw)


SEED = (
    "one seed, one picture, on one machine with one number of threads: another number of threads rounds in another "
    "way, and the picture becomes another one (see --threads); default: 0"
)
THREADS = "compute on N threads; the last line of each call says how many it used; default: one for each core"
PARTS = {
    "clip": "the pocket CLIP",
    "judge": "the second CLIP, which rates generated pictures",
    "search": "image search",
    "scale": "an index that a cluster builds",
    "vqgan": "the pocket VQGAN",
    "prior": "the prior over its codes",
    "guide": "the CLIP that guides painting",
    "dalle": "the transformer that draws from a caption",
    "paint": "painting by VQGAN+CLIP",
    "photos": "the photo CLIP",
    "familiar": "the statistics that tell a CLIP's own kind of pictures from others",
    "lessons": "the lessons",
    "all": "all parts",
}
CAPTIONED = "captioned photographs: FOLDER/captions.tsv and FOLDER/pictures/"


def _models(commands, name: str, help: str, run, parts: Sequence[str]) -> list[argparse.ArgumentParser]:
    """The parsers of `mmlesson <name> <part>`, one for each part of the course that it can be done with."""
    group = commands.add_parser(name, help=help).add_subparsers(
        title="parts", required=True, metavar="PART", dest="model_kind"
    )
    parsers = []
    for part in parts:
        about = help.replace("a pocket model", PARTS[part]).replace("the speed", f"the speed of {PARTS[part]}")
        parsers.append(group.add_parser(part, help=about))
        parsers[-1].set_defaults(run=run, model_kind=part)
    return parsers


# --------------------------------------------------------------------------- the gates, as argparse types

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
LARGEST_SEED = 2**63 - 1  # what torch takes
LONG = re.compile(r"(\S{400})\S{600,}")
# Digits of ASCII only: Python's int and float also read "٣" and "1_000", which are rather slips than numbers.
WHOLE = re.compile(r"[+-]?[0-9]{1,30}")
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def _whole(least: int | None = None, most: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        return gates.whole_number("it", int(text) if WHOLE.fullmatch(text) else text, least, most)

    return _refusing(parse)


def _number(
    above: float | None = None, least: float | None = None, most: float | None = None
) -> Callable[[str], float]:
    def parse(text: str) -> float:
        return gates.real_number("it", float(text) if NUMBER.fullmatch(text) else text, above, least, most)

    return _refusing(parse)


def _file(*endings: str) -> Callable[[str], Path]:
    return _refusing(lambda text: gates.output_path(text, endings))


def _refusing(gate: Callable[[str], T]) -> Callable[[str], T]:
    """The gate as an argparse type: what it says becomes the message of the option, with exit status 2."""

    def parse(text: str) -> T:
        try:
            return gate(text)
        except (ValueError, gates.AssetError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        except OSError as error:
            raise argparse.ArgumentTypeError(gates.of_a_place(error) or gates.reason(error)) from None

    parse.checks = True  # so that a test can tell an option with a gate from one without
    return parse


_path = _refusing(gates.input_path)
_folder = _refusing(gates.output_folder)
_captioned = _refusing(photo_folder.captioned_folder)


# ------------------------------------------------------------------------------------------ commands


def _train(options: argparse.Namespace) -> int | None:
    from mmlesson.train import clip, dalle, guide, photos, prior, run, vqgan

    recipes = {
        "clip": (clip.Recipe, clip.Training),
        "judge": (clip.JudgeRecipe, clip.Training),
        "vqgan": (vqgan.Recipe, vqgan.Training),
        "prior": (prior.Recipe, prior.Training),
        "guide": (guide.Recipe, guide.Training),
        "dalle": (dalle.Recipe, dalle.Training),
        "photos": (photos.Recipe, partial(photos.Training, folder=getattr(options, "data", None))),
    }
    return run.main(options, *recipes[options.model_kind])


def _familiar(options: argparse.Namespace) -> int:
    from mmlesson.train import familiar

    return familiar.main(options)


def _measure(options: argparse.Namespace) -> int:
    from mmlesson.measure import report

    return report.main(options)


def _list_models(options: argparse.Namespace) -> int:
    from mmlesson.models import registry_page

    return registry_page.models(options)


def _download(options: argparse.Namespace) -> int:
    from mmlesson.models import registry_page

    return registry_page.download(options)


def _measured(options: argparse.Namespace) -> int:
    from mmlesson.measure import page

    return page.main(options)


if __name__ == "__main__":
    sys.exit(main())
