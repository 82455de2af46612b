"""Scenes as the pocket DALL-E knows them: every object in the middle, on whole squares, always of one size."""

from __future__ import annotations

from mmlesson import world

SQUARES = (10, 5)  # of twelve, that an object fills along a side, alone and in pairs: as in pocket-dalle's recipe


def scenes_in_the_middle(n: int, split: str, seed: int) -> list[world.Scene]:
    """`n` scenes of one or two objects from a split ("train" or "heldout"), moved to the middle."""
    return [world.in_the_middle(scene, SQUARES) for scene in world.sample(n, split, seed)]
