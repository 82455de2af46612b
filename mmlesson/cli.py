"""The command `mmlesson`: doctor, lab, lessons, search, paint, draw, train, eval, bench, measured, world.

Each subcommand imports what it needs when it runs, so that `mmlesson doctor` works where torch does not.
A mistake that the course knows of is one sentence on stderr and exit status 1, not a traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import mmlesson
from mmlesson import gates
from mmlesson.models import assets

FIRST_LESSON = "01_clip.ipynb"
# What `mmlesson lab` has other than JupyterLab itself. Messages of widgets in a thread of their own now and then get lost
# on the way: what was typed never reached the kernel in about one of five quick dialogues, and in none without.
LAB_DEFAULTS = {"@jupyterlab/apputils-extension:kernels-settings": {"commsOverSubshells": "disabled"}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (None: that of this process); returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except KeyboardInterrupt as stop:
        print(f"\nstopped. {stop}".rstrip(), file=sys.stderr)  # what is kept, where the work that was stopped says so
        return 130
    except BrokenPipeError:  # `mmlesson … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains again at its end
        return 1
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        print(f"mmlesson: {sentence}", file=sys.stderr)
        return 1


def _sentence(error: Exception) -> str | None:
    """What to say for an error that the course knows of; None for one that is a bug and deserves its traceback."""
    if isinstance(error, gates.AssetError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and not (error.name or "mmlesson").startswith("mmlesson"):
        return f"the package {error.name} is not installed: `mmlesson doctor` says what is missing and how to mend it."
    if isinstance(error, RuntimeError) and "torchvision::nms" in str(error):
        return "torchvision does not match torch: `mmlesson doctor` says how to mend it."
    # these two are also raised by libraries, about things that say nothing to a learner
    if isinstance(error, (ValueError, FileNotFoundError)) and _raised_by_us(error) and str(error):
        return str(error)
    return None


def _raised_by_us(error: Exception) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and assets.PACKAGE in Path(frames[-1].filename).resolve().parents


# ------------------------------------------------------------------------------------------- options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mmlesson", description="A course on models that join pictures and words.")
    parser.add_argument("--version", action="version", version=f"mmlesson {mmlesson.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    doctor = commands.add_parser("doctor", help="would the lessons run here, and what mends it if not")
    doctor.add_argument("--json", action="store_true", help="print one JSON object instead of sentences")
    doctor.set_defaults(run=_doctor)

    lab = commands.add_parser("lab", help="open the lessons in JupyterLab")
    lab.add_argument("--no-browser", action="store_true", help="print the address instead of opening a browser")
    lab.set_defaults(run=_lab)

    lessons = commands.add_parser("lessons", help="execute the lessons and write them as pages")
    lessons.add_argument(
        "--out", type=Path, default=Path("build/lessons"), metavar="DIR", help="default: build/lessons"
    )
    lessons.add_argument("--only", metavar="LESSON", help="one lesson, such as 01_clip")
    lessons.add_argument("--write-back", action="store_true", help="also keep the outputs in the notebooks themselves")
    lessons.set_defaults(run=_lessons)

    search = commands.add_parser(
        "search",
        help="find pictures in a folder by a sentence",
        description="Find the pictures in a folder that fit a sentence best. The folder is indexed first, and then only what has changed; "
        "the index lives in the cache. Exit status 1 where nothing fits.",
    )
    search.add_argument("folder", type=Path, metavar="FOLDER", help="the pictures, with all folders below")
    search.add_argument("query", nargs="*", metavar="SENTENCE", help="what the picture shows; several are added up")
    search.add_argument("-k", type=_positive(int), default=10, metavar="N", help="how many to find; default: 10")
    search.add_argument(
        "--like", type=Path, action="append", default=[], metavar="PICTURE", help="also like this picture"
    )
    search.add_argument(
        "--minus", action="append", default=[], metavar="SENTENCE", help="and less like this (weight -0.5)"
    )
    search.add_argument(
        "--where", metavar="SQL", help="a filter over path, size, modified, sha256, caption: \"path LIKE '2026/%%'\""
    )
    search.add_argument("--min-score", type=float, metavar="X", help="nothing below this cosine")
    search.add_argument("--model", metavar="NAME", help="the CLIP; default: MMLESSON_CLIP, or the pocket model")
    search.add_argument("--open", action="store_true", help="open the best one in the system's viewer")
    search.add_argument("--json", action="store_true", help="print a list of objects")
    search.add_argument(
        "--grid", type=Path, metavar="FILE", help="also write the pictures with their scores as one picture"
    )
    search.set_defaults(run=_search)

    paint = commands.add_parser(
        "paint",
        help="paint a picture from a sentence",
        description="Paint a picture from a sentence by VQGAN+CLIP. Ctrl-C ends it early and keeps what there is.",
    )
    paint.add_argument(
        "prompt",
        nargs="+",
        metavar="SENTENCE",
        help='what to paint: "a cat on a blue background", or "a cat:1 | a dog:-0.5"',
    )
    paint.add_argument("--out", type=Path, default=Path("painting.png"), metavar="FILE", help="default: painting.png")
    paint.add_argument("--animation", type=Path, metavar="FILE", help="also write how it grew, as .gif or .mp4")
    paint.add_argument("--start", type=Path, metavar="PICTURE", help="begin with this picture instead of random codes")
    paint.add_argument("--steps", type=_positive(int), metavar="N", help="default: the painter's own")
    paint.add_argument("--seed", type=int, default=0, help="default: 0")
    paint.add_argument(
        "--side",
        type=_positive(int),
        default=384,
        metavar="PIXELS",
        help="of the picture as it is written; default: 384",
    )
    paint.add_argument(
        "--model", metavar="NAME", help="the CLIP that guides; default: MMLESSON_CLIP, or the pocket guide"
    )
    paint.set_defaults(run=_paint)

    draw = commands.add_parser(
        "draw",
        help="draw pictures of a sentence, a code at a time",
        description="Draw pictures of a sentence by DALL-E, code by code, and write them as one sheet.",
    )
    draw.add_argument("prompt", nargs="+", metavar="SENTENCE", help='what to draw: "a cat on a blue background"')
    draw.add_argument("--out", type=Path, default=Path("drawing.png"), metavar="FILE", help="default: drawing.png")
    draw.add_argument("-n", type=_positive(int), default=16, metavar="N", help="how many pictures; default: 16")
    draw.add_argument("--seed", type=int, default=0, help="default: 0")
    draw.add_argument(
        "--temperature", type=_positive(float), metavar="T", help="below 1: surer, above: bolder; default: 0.5"
    )
    draw.add_argument("--top-k", type=_positive(int), metavar="K", help="draw from the K likeliest codes alone")
    draw.add_argument(
        "--top-p",
        type=_positive(float),
        metavar="P",
        help="draw from the likeliest codes that together have this share",
    )
    draw.add_argument(
        "--guidance", type=_positive(float), metavar="G", help="1: none, above: nearer to the sentence; default: 1"
    )
    draw.add_argument("--rerank", action="store_true", help="put first what CLIP finds to fit best")
    draw.add_argument("--model", metavar="NAME", help="the DALL-E; default: the pocket model")
    draw.set_defaults(run=_draw)

    train = _models(
        commands, "train", "train a pocket model", _train, ("clip", "judge", "vqgan", "prior", "guide", "dalle")
    )
    for recipe in train:
        length = recipe.add_mutually_exclusive_group()
        length.add_argument(
            "--minutes", type=_positive(float), metavar="M", default=120.0, help="train so long in all; default: 120"
        )
        length.add_argument(
            "--steps", type=_positive(int), metavar="N", help="train so many steps in all, instead of minutes"
        )
        recipe.add_argument(
            "--out", type=Path, metavar="DIR", help="where the finished model goes; default: build/pocket-…"
        )
        recipe.add_argument(
            "--state", type=Path, metavar="DIR", help="where checkpoints and log go; default: in the cache"
        )
        again = recipe.add_mutually_exclusive_group()
        again.add_argument(
            "--resume", action="store_true", help="go on from the checkpoint where there is one (it does anyway)"
        )
        again.add_argument("--fresh", action="store_true", help="throw the checkpoint away and start anew")
        recipe.add_argument(
            "--workers", type=int, metavar="N", default=1, help="processes that draw scenes; default: 1"
        )
        recipe.add_argument("--seed", type=int, default=0, help="default: 0")
        recipe.add_argument("--device", metavar="NAME", help="cpu, cuda or mps; default: the best one here")

    sizes = {"clip": 500, "judge": 500, "search": 1000, "vqgan": 2000, "paint": 24, "dalle": 200}
    for measure in _models(commands, "eval", "measure a pocket model on held-out data", _measure, (*sizes, "all")):
        part = measure.get_default("model_kind")
        measure.set_defaults(command="eval", part=part, model=None, n=sizes.get(part), pictures=None, settings=False)
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
            "--n", type=_positive(int), default=sizes[part], help=f"how many held-out {what}; default: {sizes[part]}"
        )
        if part in ("paint", "dalle"):
            measure.add_argument(
                "--pictures", type=Path, metavar="DIR", help="where the pictures go; default: they are not kept"
            )
        if part == "dalle":
            measure.add_argument(
                "--settings",
                action="store_true",
                help="instead: compare temperatures and guidances on training prompts, without the judge",
            )

    speeds = ("clip", "search", "paint", "dalle", "lessons", "all")
    for speed in _models(commands, "bench", "measure the speed against a peer", _measure, speeds):
        part = speed.get_default("model_kind")
        speed.set_defaults(command="bench", part=part, json=False)
        if part != "all":
            speed.add_argument("--json", action="store_true", help="end with one line of JSON")
        speed.add_argument("--write", action="store_true", help="keep the figures in data/measured/")

    measured = commands.add_parser("measured", help="the stored figures: which are stale; or all of them as one page")
    measured.add_argument("--write", type=Path, metavar="FILE", help="write the page of all tables: MEASURED.md")
    measured.set_defaults(run=_measured)

    world = commands.add_parser("world", help="draw a sheet of scenes of the pocket world")
    world.add_argument("--sheet", type=Path, default=Path("world.png"), metavar="FILE", help="default: world.png")
    world.add_argument("--seed", type=int, default=0, help="default: 0")
    world.set_defaults(run=_world)
    return parser


PARTS = {
    "clip": "the pocket CLIP",
    "judge": "the second CLIP, which rates generated pictures",
    "search": "image search",
    "vqgan": "the pocket VQGAN",
    "prior": "the prior over its codes",
    "guide": "the CLIP that guides painting",
    "dalle": "the transformer that draws from a caption",
    "paint": "painting by VQGAN+CLIP",
    "lessons": "the lessons",
    "all": "all parts",
}


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


def _positive(kind: type):
    """An argparse type: a number above zero."""

    def parse(text: str):
        number = kind(text)
        if not number > 0:
            raise argparse.ArgumentTypeError(f"must be above zero, not {text}")
        return number

    parse.__name__ = {int: "whole number", float: "number"}[kind]  # argparse: "invalid number value: 'x'"
    return parse


# ------------------------------------------------------------------------------------------ commands


def _doctor(options: argparse.Namespace) -> int:
    from mmlesson import doctor

    return doctor.report(as_json=options.json)


def _lab(options: argparse.Namespace) -> int:
    import importlib.util
    import json
    import subprocess

    if importlib.util.find_spec("jupyterlab") is None:
        raise gates.AssetError("JupyterLab is not installed: `mmlesson doctor` says how to mend it.")
    folder = assets.notebooks_dir()
    if not assets.in_checkout():
        folder = copy_lessons(folder, Path.cwd() / "mmlesson-lessons")
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}"]
    if (folder / FIRST_LESSON).is_file():
        command.append(f"--LabApp.default_url=/lab/tree/{FIRST_LESSON}")
    # a class without a network: JupyterLab would ask a registry for extensions, for newer versions of itself, and for news
    command += [
        "--LabApp.extension_manager=readonly",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    command.append("--LabApp.news_url=None")
    if options.no_browser:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # in a container there is often nobody else

    settings = assets.cache_dir() / "jupyter"
    gates.write_atomically(settings / "labconfig" / "default_setting_overrides.json", json.dumps(LAB_DEFAULTS).encode())
    paths = os.pathsep.join(
        filter(None, [os.environ.get("JUPYTER_CONFIG_PATH"), str(settings)])
    )  # the learner's own come first
    server = subprocess.Popen(command, env={**os.environ, "JUPYTER_CONFIG_PATH": paths})
    while True:
        try:
            return server.wait()
        except KeyboardInterrupt:
            continue  # Jupyter got it too, and asks whether it was meant


def copy_lessons(source: Path, target: Path) -> Path:
    """Copy the notebooks of an installed wheel to a folder of the learner's; returns that folder.

    A notebook that is there already is the learner's own by now, and stays as it is.
    """
    for notebook in sorted(source.glob("*.ipynb")):
        own = target / notebook.name
        if own.exists():
            continue
        gates.write_atomically(own, notebook.read_bytes())
        print(f"copied {notebook.name} to {target}")
    return target


def _lessons(options: argparse.Namespace) -> int:
    from mmlesson.teach.lessons import run_lessons

    for lesson in run_lessons(assets.notebooks_dir(), options.out, options.only, options.write_back):
        print(lesson, flush=True)
    return 0


def _search(options: argparse.Namespace) -> int:
    import json
    import webbrowser

    from mmlesson.clip import load_clip
    from mmlesson.search import ImageIndex

    query = [*options.query, *options.like, *((-0.5, text) for text in options.minus)]
    if not options.query and not options.like:
        raise ValueError(
            'say what to look for: a sentence, as in `mmlesson search pictures "a red apple"`, or a picture with --like.'
        )
    clip = load_clip(options.model)
    index = ImageIndex.build(options.folder, clip)
    print(f"{len(index)} pictures", end="", file=sys.stderr)
    print(f", {len(index.skipped)} left out:" if index.skipped else "", file=sys.stderr)
    for name, reason in index.skipped[:5]:
        print(f"  {name}: {reason}", file=sys.stderr)
    if len(index.skipped) > 5:
        print(f"  … and {len(index.skipped) - 5} more", file=sys.stderr)

    hits = index.search(
        query[0] if len(query) == 1 and options.query else query, options.k, options.where, options.min_score
    )
    if options.json:
        print(
            json.dumps(
                [{"path": str(hit.path), "score": round(hit.score, 6), "caption": hit.caption} for hit in hits],
                indent=1,
            )
        )
    else:
        print(hits)
    if options.grid and hits:
        sheet = hits.grid()
        gates.write_atomically(options.grid, lambda path: sheet.save(path))
    if options.open and hits:
        webbrowser.open(hits[0].path.as_uri())
    return 0 if hits else 1


PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def _check_ending(file: Path | None, kinds: Sequence[str]) -> None:
    """Before the work, not after it."""
    if file and file.suffix.lower() not in kinds:
        raise ValueError(f"{file} has to end in {' or '.join(kinds)}.")


def _paint(options: argparse.Namespace) -> int:
    from PIL import Image

    from mmlesson import runtime
    from mmlesson.clip import load_clip, load_guide
    from mmlesson.painter import paint
    from mmlesson.vqgan import load_vqgan

    _check_ending(options.out, PICTURES)
    _check_ending(options.animation, (".gif", ".mp4"))
    length = {"steps": options.steps} if options.steps else {}
    guide = load_clip(options.model) if options.model else load_guide()
    painting = paint(" ".join(options.prompt), guide, load_vqgan(), start=options.start, seed=options.seed, **length)
    stopped = False
    try:
        for _ in runtime.progress(painting, painting.total, "painting", "step"):
            pass
    except KeyboardInterrupt:
        if painting.best is None:
            raise
        stopped = True
    side = (options.side, options.side)
    picture = painting.best.image.resize(side, Image.Resampling.BICUBIC)
    gates.write_atomically(options.out, lambda path: picture.save(path))
    if options.animation:
        painting.save_animation(options.animation, side=options.side)
    scores = ", ".join(f"{name}: cosine {score:.2f}" for name, score in painting.best.scores.items())
    print(f"{options.out}: step {painting.best.index} of {painting.total}, {scores}")
    if stopped:
        raise KeyboardInterrupt(f"{options.out} holds the painting so far.")
    return 0


def _draw(options: argparse.Namespace) -> int:
    from mmlesson import runtime
    from mmlesson.clip import load_clip
    from mmlesson.dalle import load_dalle, rerank
    from mmlesson.pixels import image_grid
    from mmlesson.vqgan import load_vqgan

    _check_ending(options.out, PICTURES)
    prompt, vqgan = " ".join(options.prompt), load_vqgan()
    dalle = load_dalle(options.model)
    dalle.check_vqgan(vqgan)
    asked = {name: getattr(options, name) for name in ("temperature", "top_k", "top_p", "guidance")}
    steps = dalle.generate_steps(
        prompt, options.n, options.seed, **{name: value for name, value in asked.items() if value is not None}
    )
    for step in runtime.progress(steps, dalle.config.grid**2, "drawing", "code"):
        pass
    pictures, captions = vqgan.decode(step.codes), None
    if options.rerank:
        ranked = rerank(pictures, prompt, load_clip())
        pictures, captions = ranked.images, [f"{score:.2f}" for score in ranked.scores]
    side = 2 * vqgan.config.image_size
    sheet = image_grid([picture.resize((side, side)) for picture in pictures], min(4, options.n), captions)
    gates.write_atomically(options.out, lambda path: sheet.save(path))
    print(f"{options.out}: {len(pictures)} pictures of “{prompt}”")
    return 0


def _train(options: argparse.Namespace) -> int | None:
    if options.model_kind == "vqgan":
        from mmlesson.train import vqgan as recipe
    elif options.model_kind == "prior":
        from mmlesson.train import prior as recipe
    elif options.model_kind == "guide":
        from mmlesson.train import guide as recipe
    elif options.model_kind == "dalle":
        from mmlesson.train import dalle as recipe
    else:
        from mmlesson.train import clip as recipe

    return recipe.main(options)


def _measure(options: argparse.Namespace) -> int:
    from mmlesson.measure import report

    return report.main(options)


def _measured(options: argparse.Namespace) -> int:
    from mmlesson.measure import page

    return page.main(options)


def _world(options: argparse.Namespace) -> int:
    from mmlesson import world
    from mmlesson.pixels import image_grid

    scenes = world.sample(32, split="train", seed=options.seed)
    sheet = image_grid([scene.render(160) for scene in scenes], 8, [scene.caption for scene in scenes])
    gates.write_atomically(options.sheet, lambda path: sheet.save(path))
    print(f"{options.sheet}: {len(scenes)} scenes of the training split, {sheet.width} x {sheet.height} pixels")
    return 0


if __name__ == "__main__":
    sys.exit(main())
