"""The statistics that tell a CLIP's own kind of pictures from others: `mmlesson train familiar --data FOLDER`.

The pocket CLIP's own kind is the scenes of the pocket world, the photo CLIP's is the photographs of the folder, and
each is the other kind of the other. See models/familiar.py for the method. It takes about a minute, and changes no
weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch

from mmlesson import runtime, world
from mmlesson.clip import CLIP, PHOTO, POCKET, load_clip
from mmlesson.models import assets, familiar
from mmlesson.models.photo_form import LICENCE
from mmlesson.photo_folder import read_captions

LAYERS = {POCKET: "visual.layer1", PHOTO: "visual.trunk.blocks.2"}
LICENCES = {POCKET: None, PHOTO: LICENCE}  # None: as that of the weights
LEARNED, HELD_OUT = 2000, 600  # pictures


def pictures(name: str, data: Path, seed: int) -> tuple[list, list, list]:
    """Pictures of a CLIP's own kind to learn from, held-out ones, and pictures of the other kind."""
    photographs = read_captions(data, "train")
    learned = [picture.path for picture in photographs if not picture.held_out]
    held_out = [picture.path for picture in photographs if picture.held_out]
    if name == PHOTO:
        return _some(learned, LEARNED, seed), held_out[:HELD_OUT], _scenes("train", HELD_OUT, seed)
    return _scenes("train", LEARNED, seed), _scenes("heldout", HELD_OUT, seed), _some(learned, HELD_OUT, seed)


def _some(paths: Sequence[Path], n: int, seed: int) -> list[Path]:
    order = torch.randperm(len(paths), generator=runtime.generator(seed)).tolist()
    return [paths[place] for place in order[:n]]


def _scenes(split: str, n: int, seed: int) -> list:
    return [scene.render(256) for scene in world.sample(n, split, seed=seed)]


def features(clip: CLIP, layer: str, images: Sequence, batch_size: int = 64) -> torch.Tensor:
    """What `models.familiar.features` finds, of pictures of any number: float32 [n, 2 c]."""

    def batches() -> Iterator[torch.Tensor]:
        ready = iter(runtime.progress(map(clip.prepare, images), len(images), "looking", "picture"))
        while batch := list(islice(ready, batch_size)):
            yield familiar.features(clip.model, layer, torch.stack(batch).to(clip.device))

    return torch.cat(list(batches()))


def main(options) -> int:
    """`mmlesson train familiar`: writes the two files into the folder of the model, or into `options.out`."""
    runtime.set_threads()
    for name in [options.model] if options.model else [POCKET, PHOTO]:
        clip, layer = load_clip(name, "cpu"), LAYERS[name]
        learned, held_out, others = (
            features(clip, layer, found) for found in pictures(name, options.data, options.seed)
        )
        familiarity = familiar.fit(layer, learned, held_out, others)
        folder = options.out / name if options.out else assets.model_dir(name)
        folder.mkdir(parents=True, exist_ok=True)
        familiarity.save(folder)
        if not options.out:
            assets.update_manifest([folder], licence=LICENCES[name])
        print(f"{name}: {len(learned)} pictures of its kind, {len(held_out)} held out, {len(others)} others → {folder}")
    return 0
