"""The parts that can be measured: which file measures each, and what its figures depend on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One part. Paths count from the folder of the package; a folder stands for all Python files in it."""

    module: str  # in measure/: its `report(options)` measures
    weights: tuple[str, ...]  # folders of data/models/
    code: tuple[str, ...]  # what produces the figures: the measurement, the networks, the world
    n: int | None = None  # scenes or prompts, where their number can be chosen
    lessons: bool = False  # its figures depend on the code cells of the notebooks too


_CLIP = ("clip.py", "words.py", "models/clips.py", "models/towers.py")
_SEEING = (*_CLIP, "world", "measure/namer.py")
_PAINTING = (*_SEEING, "vqgan.py", "prior.py", "painter.py", "prompts.py")
_DRAWING = (*_SEEING, "vqgan.py", "dalle.py", "captions.py")
_ALL_MODELS = ("pocket-clip", "judge-clip", "pocket-vqgan", "pocket-prior", "pocket-guide", "pocket-dalle")

PARTS: dict[str, Part] = {
    "eval clip": Part("clip", ("pocket-clip",), ("measure/clip.py", *_SEEING), n=500),
    "eval judge": Part("clip", ("judge-clip",), ("measure/clip.py", *_SEEING), n=500),
    "eval search": Part(
        "search",
        ("pocket-clip",),
        ("measure/search.py", "measure/speed_search.py", "search", *_CLIP, "world"),
        n=1000,
    ),
    "eval vqgan": Part("vqgan", ("pocket-vqgan", "pocket-clip"), ("measure/vqgan.py", *_SEEING, "vqgan.py"), n=2000),
    "eval paint": Part(
        "painting",
        ("pocket-guide", "pocket-clip", "pocket-vqgan", "pocket-prior", "judge-clip"),
        ("measure/painting.py", "measure/outline.py", "measure/prompts.py", *_PAINTING),
        n=24,
    ),
    "eval dalle": Part(
        "drawing",
        ("pocket-dalle", "pocket-vqgan", "pocket-clip", "judge-clip"),
        ("measure/drawing.py", "measure/copies.py", "measure/prompts.py", *_DRAWING),
        n=200,
    ),
    "bench clip": Part("speed_clip", ("pocket-clip",), ("measure/speed_clip.py", *_CLIP, "pixels.py")),
    "bench search": Part("speed_search", ("pocket-clip",), ("measure/speed_search.py", "search", *_CLIP)),
    "bench scale": Part(
        "speed_scale",
        ("pocket-clip",),
        ("measure/speed_scale.py", "measure/speed_search.py", "search", *_CLIP, "pixels.py"),
    ),
    "bench paint": Part(
        "speed_painting",
        ("pocket-guide", "pocket-clip", "pocket-vqgan", "pocket-prior"),
        ("measure/speed_painting.py", "painter.py", "prompts.py", "vqgan.py", "prior.py", *_CLIP),
    ),
    "bench dalle": Part(
        "speed_drawing",
        ("pocket-dalle", "pocket-vqgan"),
        ("measure/speed_drawing.py", "dalle.py", "captions.py", "words.py", "vqgan.py"),
    ),
    "bench lessons": Part("lessons", _ALL_MODELS, ("measure/lessons.py",), lessons=True),
}

# Parts that measure the reader's own files, and the modules of measure/ that do it. Their figures are true of those
# files alone: they are not stored, and `eval all` leaves them out.
UNSTORED: dict[str, str] = {"eval photos": "photos"}


def module_of(name: str) -> str:
    """The module in measure/ that measures a part ("eval clip")."""
    return UNSTORED[name] if name in UNSTORED else PARTS[name].module
