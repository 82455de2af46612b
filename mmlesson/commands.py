"""What the commands of `mmlesson` do: each function takes the parsed options and returns the exit status.

`cli.py` reads the command line and calls them. Each imports what it needs when it runs, so that `mmlesson doctor`
works where torch does not.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mmlesson import gates
from mmlesson.models import assets

FIRST_LESSON = "01_clip.ipynb"
# Where `mmlesson lab` differs from JupyterLab's defaults. With a thread of their own, messages of widgets are lost now
# and then: in one of five quick dialogues the kernel never received what was typed. Without the thread, in none.
LAB_DEFAULTS = {"@jupyterlab/apputils-extension:kernels-settings": {"commsOverSubshells": "disabled"}}


def run_doctor(options: argparse.Namespace) -> int:
    from mmlesson import doctor

    return doctor.report(as_json=options.json)


def run_lab(options: argparse.Namespace) -> int:
    import importlib.util
    import json
    import subprocess

    if importlib.util.find_spec("jupyterlab") is None:
        raise gates.AssetError("JupyterLab is not installed: `mmlesson doctor` says how to fix it.")
    folder = assets.notebooks_dir()
    if not assets.in_checkout():
        folder = copy_lessons(folder, Path.cwd() / "mmlesson-lessons")
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}"]
    if (folder / FIRST_LESSON).is_file():
        command.append(f"--LabApp.default_url=/lab/tree/{FIRST_LESSON}")
    # a class may have no network: JupyterLab would ask for extensions, for newer versions of itself, and for news
    command.append("--LabApp.extension_manager=readonly")
    command.append("--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate")
    command.append("--LabApp.news_url=None")
    if options.no_browser:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # in a container there is often nobody else

    settings = assets.cache_dir() / "jupyter"
    gates.write_atomically(settings / "labconfig" / "default_setting_overrides.json", json.dumps(LAB_DEFAULTS).encode())
    learners_own = os.environ.get("JUPYTER_CONFIG_PATH")  # comes first
    paths = os.pathsep.join([*([learners_own] if learners_own else []), str(settings)])
    server = subprocess.Popen(command, env={**os.environ, "JUPYTER_CONFIG_PATH": paths})
    while True:
        try:
            return server.wait()
        except KeyboardInterrupt:
            continue  # Jupyter gets the signal too, and asks whether to stop


def copy_lessons(source: Path, target: Path) -> Path:
    """Copy the notebooks of an installed wheel to a folder of the learner's; returns that folder.

    A notebook that exists there already may hold the learner's work: it is not overwritten.
    """
    for notebook in sorted(source.glob("*.ipynb")):
        own = target / notebook.name
        if own.exists():
            continue
        gates.write_atomically(own, notebook.read_bytes())
        print(f"copied {notebook.name} to {target}")
    return target


def run_lessons(options: argparse.Namespace) -> int:
    from mmlesson.teach.lessons import run_lessons

    for lesson in run_lessons(assets.notebooks_dir(), options.out, options.only, options.write_back):
        print(lesson, flush=True)
    return 0


def run_search(options: argparse.Namespace) -> int:
    import json
    import webbrowser

    from mmlesson.clip import load_clip
    from mmlesson.search import ImageIndex

    if not options.query and not options.like:
        raise ValueError(
            'say what to look for: a sentence, as in `mmlesson search pictures "a red apple"`, '
            "or a picture with --like."
        )
    query = [*options.query, *options.like, *((-0.5, text) for text in options.minus)]
    clip = load_clip(options.model)
    index = ImageIndex.build(options.folder, clip)
    print(f"{len(index)} pictures", end="", file=sys.stderr)
    print(f", {len(index.skipped)} left out:" if index.skipped else "", file=sys.stderr)
    for name, reason in index.skipped[:5]:
        print(f"  {name}: {reason}", file=sys.stderr)
    if len(index.skipped) > 5:
        print(f"  … and {len(index.skipped) - 5} more", file=sys.stderr)

    alone = len(query) == 1 and options.query  # a list of one sentence is a weighted sum of one, with other messages
    hits = index.search(query[0] if alone else query, options.k, options.where, options.min_score)
    if options.json:
        found = [{"path": str(hit.path), "score": round(hit.score, 6), "caption": hit.caption} for hit in hits]
        print(json.dumps(found, indent=1))
    else:
        print(hits)
    if options.grid is not None and hits:
        sheet = hits.grid()
        gates.write_atomically(options.grid, lambda path: sheet.save(path))
    if options.open and hits:
        webbrowser.open(hits[0].path.as_uri())
    return 0 if hits else 1


def run_paint(options: argparse.Namespace) -> int:
    from PIL import Image

    from mmlesson import runtime
    from mmlesson.clip import load_clip, load_guide
    from mmlesson.painter import paint
    from mmlesson.vqgan import load_vqgan

    length = {} if options.steps is None else {"steps": options.steps}
    guide = load_guide() if options.model is None else load_clip(options.model)
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
    if options.animation is not None:
        painting.save_animation(options.animation, side=options.side)
    scores = ", ".join(f"{name}: cosine {score:.2f}" for name, score in painting.best.scores.items())
    print(f"{options.out}: step {painting.best.index} of {painting.total}, {scores}")
    if stopped:
        raise KeyboardInterrupt(f"{options.out} holds the painting so far.")
    return 0


def run_draw(options: argparse.Namespace) -> int:
    from mmlesson import runtime
    from mmlesson.clip import load_clip
    from mmlesson.dalle import load_dalle, rerank
    from mmlesson.pixels import image_grid
    from mmlesson.vqgan import load_vqgan

    prompt = " ".join(options.prompt)
    vqgan = load_vqgan()
    dalle = load_dalle(options.model)
    dalle.check_vqgan(vqgan)
    settings = {name: getattr(options, name) for name in ("temperature", "top_k", "top_p", "guidance")}
    asked = {name: value for name, value in settings.items() if value is not None}
    steps = dalle.generate_steps(prompt, options.n, options.seed, **asked)
    last = None
    for step in runtime.progress(steps, dalle.config.grid**2, "drawing", "code"):
        last = step
    pictures = vqgan.decode(last.codes)
    captions = None
    if options.rerank:
        ranked = rerank(pictures, prompt, load_clip())
        pictures = ranked.images
        captions = [f"{score:.2f}" for score in ranked.scores]
    side = 2 * vqgan.config.image_size
    sheet = image_grid([picture.resize((side, side)) for picture in pictures], min(4, options.n), captions)
    gates.write_atomically(options.out, lambda path: sheet.save(path))
    print(f"{options.out}: {len(pictures)} pictures of “{prompt}”")
    return 0


def run_world(options: argparse.Namespace) -> int:
    from mmlesson import world
    from mmlesson.pixels import image_grid

    scenes = world.sample(32, split="train", seed=options.seed)
    sheet = image_grid([scene.render(160) for scene in scenes], 8, [scene.caption for scene in scenes])
    gates.write_atomically(options.sheet, lambda path: sheet.save(path))
    print(f"{options.sheet}: {len(scenes)} scenes of the training split, {sheet.width} x {sheet.height} pixels")
    return 0
