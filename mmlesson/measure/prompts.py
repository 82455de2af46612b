"""What eval paint and eval dalle share: the held-out prompts, and the pictures that the judge has named."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from mmlesson import world
from mmlesson.pixels import image_grid, save_image


@dataclass(frozen=True)
class Judged:
    """What an evaluation made: its figures, the chance level of each, and the pictures with captions for a sheet."""

    figures: dict[str, float]
    chance: dict[str, float]
    pictures: list[Image.Image] = field(repr=False)
    captions: list[str] = field(repr=False)


def heldout_prompts(n: int = 24) -> list[tuple[str, str]]:
    """(concept, background): held-out pairs of up to `n` different concepts, in the order of a hash of their names.

    Fewer than `n` where there are fewer: 430 concepts have a held-out background.
    """
    pairs = itertools.product((concept.name for concept in world.concepts()), world.BACKGROUNDS)
    kept = [pair for pair in pairs if world.scene(pair[0], background=pair[1]).held_out]
    kept.sort(key=lambda pair: hashlib.sha256(f"paint|{pair[0]}|{pair[1]}".encode()).digest())
    first: dict[str, tuple[str, str]] = {}
    for pair in kept:
        first.setdefault(pair[0], pair)  # the pair of each concept that comes first
    return list(first.values())[:n]


def caption(concept: str, background: str) -> str:
    """The canonical caption: "a cat on a blue background"."""
    return world.scene(concept, background=background).caption


def write_pictures(judged: Judged, folder: Path) -> None:
    """Writes every picture as a PNG of its own, and all of them on one sheet with their captions; says where."""
    for number, picture in enumerate(judged.pictures):
        save_image(picture, folder / f"{number:02d}.png")
    large = [picture.resize((192, 192), Image.Resampling.BICUBIC) for picture in judged.pictures]
    sheet = image_grid(large, 6, judged.captions)
    save_image(sheet, folder / "sheet.png")
    print(f"The pictures are in {folder}; sheet.png shows all of them with their captions.\n")
