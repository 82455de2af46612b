"""Whether the outline of a picture is that of a thing: a second opinion on what a picture shows, without a network.

    fit = outline_fit(picture, "cat")
    fit.overlap, fit.distance, fit.agrees       # 0.97, 0.1, True

A CLIP can be content with a smear that has the right colours and parts. This looks at nothing but shape. It lays the
OpenMoji picture of the named concept over the picture, in many sizes, mirrored or not, and finds the place where both
silhouettes overlap best. Two numbers say how well it fits there:

overlap    the intersection of both silhouettes over their union (intersection over union, 0…1)
distance   how far the edges of one are from those of the other, on the mean, in percent of the picture's side: the
           symmetric chamfer distance (Barrow et al. 1977, "Parametric Correspondence and Chamfer Matching")

A silhouette is all that differs from the plain background. The template stands on the same background, because a white
cup on white has no silhouette but its lines.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import fft, ndimage

from mmlesson.world.sprites import sprite

SIDE = 96  # pixels: every picture is looked at in this size
DIFFERENT = 0.1  # of the background in one colour, 0…1: from here on a pixel belongs to the thing
EDGE = 1.0  # length of the colour's gradient (Sobel), from here on a pixel lies on an edge
SMALLEST = 30  # pixels: less than that is no silhouette
LEAST_OVERLAP, LARGEST_DISTANCE = 0.5, 1.0  # a picture whose outline agrees is within both
SCALES = (0.84, 0.88, 0.92, 0.96, 1.0, 1.04)  # of a template, as shares of the silhouette's longest side
LARGE_SIDES = tuple(range(54, SIDE + 1, 6))  # tried as well where the silhouette reaches all over the picture


@dataclass(frozen=True)
class OutlineFit:
    """How well the picture of a concept fits, where it fits best."""

    overlap: float  # of the silhouettes, 0…1
    distance: float  # between the edges, in percent of the picture's side

    @property
    def agrees(self) -> bool:
        """Whether the outline is that of the concept."""
        return self.overlap >= LEAST_OVERLAP and self.distance <= LARGEST_DISTANCE


NOTHING_THERE = OutlineFit(0.0, 100.0)


def outline_fit(picture: Image.Image, concept: str) -> OutlineFit:
    """How well the outline of a picture of one thing on a plain background fits a concept, anywhere and in any size.

    Raises KeyError for an unknown concept.
    """
    pixels = np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32) / 255
    background = _background(pixels)
    silhouette = _silhouette(pixels, background)  # bool [SIDE, SIDE]
    if silhouette.sum() < SMALLEST:
        return NOTHING_THERE
    rows, columns = np.nonzero(silhouette)
    longest = max(np.ptp(rows), np.ptp(columns)) + 1
    sides = {int(np.clip(round(scale * longest), 8, SIDE)) for scale in SCALES}
    if longest > 0.95 * SIDE:
        sides.update(LARGE_SIDES)
    templates = [_template(concept, side, mirrored, background) for side in sorted(sides) for mirrored in (False, True)]
    overlap, which, row, column = _best_place(silhouette, [_silhouette(each, background) for each in templates])
    placed = np.empty_like(pixels)
    placed[:] = background
    _paste(placed, templates[which], row, column)
    return OutlineFit(overlap, _distance(_edges(pixels), _edges(placed)))


def _background(pixels: np.ndarray) -> tuple[float, float, float]:
    """The median colour of the picture's frame, three pixels wide, rounded so that templates can be kept."""
    frame = np.ones(pixels.shape[:2], bool)
    frame[3:-3, 3:-3] = False
    red, green, blue = np.median(pixels[frame], axis=0).round(2).tolist()
    return red, green, blue


def _silhouette(pixels: np.ndarray, background: Sequence[float]) -> np.ndarray:
    """What differs from the background: float [h, w, 3] → bool [h, w]."""
    return np.abs(pixels - np.float32(background)).max(-1) > DIFFERENT


def _edges(pixels: np.ndarray) -> np.ndarray:
    """The pixels on edges: float [h, w, 3] → bool [h, w]."""
    steps = [ndimage.sobel(pixels, axis) for axis in (0, 1)]
    return np.sqrt(sum(np.square(step).sum(-1) for step in steps)) > EDGE


@functools.lru_cache(maxsize=2000)
def _template(concept: str, side: int, mirrored: bool, background: tuple[float, float, float]) -> np.ndarray:
    """The picture of a concept on a plain background, its longest side `side` pixels: float [h, w, 3] in 0…1."""
    picture = sprite(concept, side)
    if mirrored:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    colours = np.asarray(picture, np.float32) / 255  # [h, w, 4]
    alpha = colours[..., 3:]
    return colours[..., :3] * alpha + np.float32(background) * (1 - alpha)


def _best_place(silhouette: np.ndarray, templates: Sequence[np.ndarray]) -> tuple[float, int, int, int]:
    """Where a template overlaps the silhouette best: the overlap, which template, its upper row, its left column.

    All places are tried at once: a correlation by Fourier transform counts the common pixels of each.
    """
    size = (2 * SIDE, 2 * SIDE)  # room for templates that reach out of the picture
    padded = np.zeros((len(templates), *size), np.float32)
    for canvas, template in zip(padded, templates, strict=True):
        canvas[: template.shape[0], : template.shape[1]] = template
    spectrum = fft.rfft2(silhouette.astype(np.float32), size)
    common = fft.irfft2(spectrum * np.conj(fft.rfft2(padded)), size)  # [templates, 2 SIDE, 2 SIDE]
    either = silhouette.sum() + padded.sum((1, 2))[:, None, None] - common
    overlap = common / either
    which, row, column = np.unravel_index(overlap.argmax(), overlap.shape)
    # places before the first row or column stand at the end
    row, column = (int(place) - (2 * SIDE if place >= SIDE else 0) for place in (row, column))
    return float(overlap.max()), int(which), row, column


def _paste(canvas: np.ndarray, template: np.ndarray, row: int, column: int) -> None:
    """Writes a template [h, w, 3] onto a canvas, as far as it lies on it."""
    height, width = template.shape[:2]
    top, left, bottom, right = max(row, 0), max(column, 0), min(row + height, SIDE), min(column + width, SIDE)
    canvas[top:bottom, left:right] = template[top - row : bottom - row, left - column : right - column]


def _distance(edges: np.ndarray, others: np.ndarray) -> float:
    """The mean distance from each edge to the nearest of the other picture, both ways, in percent of the side."""
    if not edges.any() or not others.any():
        return NOTHING_THERE.distance
    to_edges, to_others = (ndimage.distance_transform_edt(~each) for each in (edges, others))
    return float(to_others[edges].mean() + to_edges[others].mean()) / 2 / SIDE * 100
