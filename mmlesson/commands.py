"""What the commands of `mmlesson` do: each function takes the parsed options and returns the exit status.

`cli.py` reads the command line and calls them. Each imports what it needs when it runs, so that `mmlesson doctor`
works where torch does not.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from mmlesson import gates
from mmlesson.models import assets
from mmlesson.words import escaped, shown

T = TypeVar("T")
SPACE = 32  # pixels beside and below a drawing on its sheet: the border and a line of caption


def run_doctor(options: argparse.Namespace) -> int:
    from mmlesson import doctor

    return doctor.report(as_json=options.json)


def run_lab(options: argparse.Namespace) -> int:
    import importlib.util

    from mmlesson.teach import lab
    from mmlesson.teach.own_copies import own_copies
    from mmlesson.teach.present import copies
    from mmlesson.teach.present import lab as presenting

    if importlib.util.find_spec("jupyterlab") is None:
        raise gates.AssetError("JupyterLab is not installed: `mmlesson doctor` says how to fix it.")
    folder = (options.folder or Path.cwd() / "mmlesson-lessons").absolute()
    presents = options.present or presenting.asked_for()
    if presents:
        folder = folder / presenting.FOLDER
        settings = presenting.settings_folder(assets.cache_dir() / "jupyter-present", assets.notebooks_dir())
        made = copies.make(assets.notebooks_dir(), settings / "lessons", folder, options.fresh)
    else:
        settings = lab.settings_folder(assets.cache_dir() / "jupyter", lab.DEFAULTS)
        made = own_copies(assets.notebooks_dir(), folder, options.fresh)
    for sentence in made:
        print(sentence, flush=True)
    if presents:
        print(presenting.HOW, flush=True)
    return lab.serve(lab.command(folder, lab.FIRST_LESSON, options.no_browser), settings)


def run_lessons(options: argparse.Namespace) -> int:
    from mmlesson.teach.lessons import run_lessons
    from mmlesson.teach.present import copies

    for lesson in run_lessons(assets.notebooks_dir(), options.out, options.only, options.write_back):
        print(lesson, flush=True)
        if options.write_back and lesson.cell_seconds:
            notebook = assets.notebooks_dir() / f"{lesson.name}.ipynb"
            copies.keep_seconds(notebook, lesson.cell_seconds, time.strftime("%Y-%m-%d"))
    return 0


def run_slides(options: argparse.Namespace) -> int:
    from mmlesson.teach.slides import run_slides

    for deck in run_slides(assets.notebooks_dir(), options.out, options.only):
        print(deck, flush=True)
    return 0


def run_search(options: argparse.Namespace) -> int:
    import json
    import webbrowser

    from mmlesson import pixels
    from mmlesson.clip import ENVIRONMENT, PHOTO, load_clip
    from mmlesson.search import ImageIndex, filters

    if not options.query and not options.like:
        raise ValueError(
            'say what to look for: a sentence, as in `mmlesson search pictures "a red apple"`, '
            "or a picture with --like."
        )
    if options.where is not None:
        filters.check(options.where)  # a wrong one is said now, and not after the index is built
    query = [*options.query, *options.like, *((-0.5, text) for text in options.minus)]
    for path in options.like:
        if os.path.isdir(path):
            raise ValueError(
                f"--like {shown(path)} is a folder: name one picture in it. "
                f"To search in it: `mmlesson search {shown(path)} SENTENCE`."
            )
        pixels.load_image(path)  # so is a broken picture
    clip = load_clip(options.model or os.environ.get(ENVIRONMENT) or PHOTO)
    knows = f", which learned from {clip.knows}" if clip.knows else ""
    print(f"{clip.name}{knows}, looks; --model names another CLIP", file=sys.stderr)
    clip.tokenize([*options.query, *options.minus])  # so is a text that says nothing
    index = ImageIndex.build(options.folder, clip)
    print(f"{len(index)} pictures", end="", file=sys.stderr)
    print(f", {len(index.skipped)} left out:" if index.skipped else "", file=sys.stderr)
    for name, reason in index.skipped[:5]:
        print(f"  {shown(name)}: {escaped(reason)}", file=sys.stderr)
    if len(index.skipped) > 5:
        print(f"  … and {len(index.skipped) - 5} more", file=sys.stderr)

    alone = len(query) == 1 and options.query  # a list of one sentence is a weighted sum of one, with other messages
    if alone and options.min_score is None:
        index.keep_calibrated()
    hits = index.search(query[0] if alone else query, options.k, options.where, options.min_score)
    if options.json:
        found = [{"path": str(hit.path), "score": round(hit.score, 6), "caption": hit.caption} for hit in hits]
        print(json.dumps(found, indent=1))
    else:
        print(hits)
    if hits.best is not None and not hits and options.min_score is None:
        print("To see the nearest pictures all the same: --min-score -1", file=sys.stderr)
    if note := hits.note():
        print(note, file=sys.stderr)
    if options.grid is not None and hits:
        pixels.save_image(hits.grid(), options.grid)
    if options.open and hits:
        webbrowser.open(hits[0].path.as_uri())
    return 0 if hits else 1


def run_paint(options: argparse.Namespace) -> int:
    from PIL import Image

    from mmlesson import pixels, runtime
    from mmlesson.clip import load_clip, load_guide
    from mmlesson.painter import PaintOptions, check_animation, paint, parse_prompts
    from mmlesson.vqgan import load_vqgan

    # what can be wrong is said before the work, or at least before its result is lost
    threads = _set_threads(options)
    text = " ".join(options.prompt)
    prompts = parse_prompts(text)
    steps = PaintOptions().steps if options.steps is None else options.steps
    pixels.check_size(options.out, options.side, options.side)
    if options.animation is not None:
        check_animation(options.animation, steps, side=options.side)
    start = None if options.start is None else pixels.load_image(options.start)
    guide = load_guide() if options.model is None else load_clip(options.model)
    vqgan = load_vqgan()
    kept = steps * 3 * vqgan.config.image_size**2  # bytes: the picture of every step is kept
    gates.check_memory(f"a painting of {steps:,} steps", kept, "choose fewer --steps")

    painting = paint(text, guide, vqgan, start=start, seed=options.seed, steps=steps)
    print(f"painting {', '.join(map(str, prompts))}", file=sys.stderr)
    stopped = False
    try:
        shown_steps = runtime.progress(painting, painting.total, "painting", "step")
        for _ in _timed(shown_steps, painting.total, "Ctrl-C keeps the picture so far"):
            pass
    except KeyboardInterrupt:
        if painting.best is None:
            raise
        stopped = True
    side = (options.side, options.side)
    pixels.save_image(painting.best.image.resize(side, Image.Resampling.BICUBIC), options.out)
    if options.animation is not None:
        painting.save_animation(options.animation, side=options.side)
    scores = ", ".join(f"{name}: cosine {score:.2f}" for name, score in painting.best.scores.items())
    how = f"seed {options.seed}, {threads}"
    print(f"{shown(options.out)}: step {painting.best.index} of {painting.total}, {scores} ({how})")
    if stopped:
        raise KeyboardInterrupt(f"{shown(options.out)} holds the painting so far.")
    return 0


def run_draw(options: argparse.Namespace) -> int:
    from mmlesson import pixels, runtime, words

    prompt = " ".join(options.prompt)
    words.check(options.model, [prompt])  # what can be wrong is said before the seconds in which torch is imported
    if options.pick is not None and options.pick > options.n:
        raise ValueError(f"there is no picture {options.pick} among {options.n}: --pick is a number from 1 to -n.")

    from mmlesson.clip import load_clip
    from mmlesson.dalle import load_dalle, rerank
    from mmlesson.vqgan import load_vqgan

    threads = _set_threads(options)
    vqgan = load_vqgan()
    dalle = load_dalle(options.model)
    dalle.check_vqgan(vqgan)
    side = 2 * vqgan.config.image_size
    n_columns = 1 if options.pick is not None else min(4, options.n)
    n_rows = 1 if options.pick is not None else math.ceil(options.n / n_columns)
    pixels.check_size(options.out, n_columns * (side + SPACE), n_rows * (side + SPACE))
    settings = {name: getattr(options, name) for name in ("temperature", "top_k", "top_p", "guidance")}
    asked = {name: value for name, value in settings.items() if value is not None}
    steps = dalle.generate_steps(prompt, options.n, options.seed, **asked)
    last = None
    shown_steps = runtime.progress(steps, dalle.config.grid**2, "drawing", "code")
    for step in _timed(shown_steps, dalle.config.grid**2, "fewer pictures (-n) take less"):
        last = step
    pictures = vqgan.decode(last.codes)
    captions = None
    if options.rerank:
        ranked = rerank(pictures, prompt, load_clip())
        pictures = ranked.images
        captions = [f"{score:.2f}" for score in ranked.scores]
    pictures = [picture.resize((side, side)) for picture in pictures]
    how = f"seed {options.seed}, {threads}"
    if options.pick is not None:
        pixels.save_image(pictures[options.pick - 1], options.out)
        print(f"{shown(options.out)}: picture {options.pick} of {options.n} of “{prompt}” ({how})")
        return 0
    pixels.save_image(pixels.image_grid(pictures, n_columns, captions), options.out)
    again = "; the same call with `--pick 2` writes the second alone" if options.n > 1 else ""
    print(f"{shown(options.out)}: {len(pictures)} pictures of “{prompt}” ({how}){again}")
    return 0


def _set_threads(options: argparse.Namespace) -> str:
    """Compute on as many threads as asked for; returns what to do to get the same picture elsewhere."""
    import torch

    from mmlesson import runtime

    if options.threads is not None:
        runtime.set_threads(options.threads)
    return f"--threads {torch.get_num_threads()}"


def _timed(steps: Iterable[T], total: int, way_out: str) -> Iterator[T]:
    """Yields the steps of long work; says once how long all of them take, where that is more than five minutes.

    The first two steps do not count, because they warm up; the next three are measured.
    """
    since = 0.0
    for number, step in enumerate(steps, 1):
        if number == 2:
            since = time.monotonic()
        if number == 5:
            minutes = (time.monotonic() - since) / 3 * total / 60
            if minutes > 5:
                long = f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:,.0f} hours"
                print(f"{total:,} steps take about {long} here; {way_out}.", file=sys.stderr)
        yield step


def run_world(options: argparse.Namespace) -> int:
    from mmlesson import world
    from mmlesson.pixels import image_grid, save_image

    scenes = world.sample(32, split="train", seed=options.seed)
    sheet = image_grid([scene.render(160) for scene in scenes], 8, [scene.caption for scene in scenes])
    save_image(sheet, options.sheet)
    print(f"{shown(options.sheet)}: {len(scenes)} scenes of the training split, {sheet.width} x {sheet.height} pixels")
    return 0
