"""The measured quality of the pocket CLIP and of the judge, on held-out scenes: `mmlesson eval clip` and `eval judge`.

Every figure is measured on the trained model and again on a fresh one of the same architecture. The second is the
chance level: it shows that the measurement can fail.
"""

from __future__ import annotations

import torch

from mmlesson import runtime, world
from mmlesson.clip import CLIP, POCKET, load_clip, load_judge
from mmlesson.measure.namer import Namer, share
from mmlesson.measure.report import Report
from mmlesson.models.pocket_forms import new_clip

OF_THE_JUDGE = ("zero_shot_top1", "background_top1", "retrieval_r1", "word_order")


def evaluate_clip(clip: CLIP, n: int = 1000) -> dict[str, float]:
    """Figures of a CLIP on held-out scenes of the pocket world and on real photos.

    clip: what `load_clip` returns. n: scenes of each kind (500 at least for a figure worth quoting; captions are
    distinct). Returns shares in 0…1 under the names of "eval clip" in bars.py, and for each photo
    `photo_rank_<name>`: the rank of its true label among 20, 1 is the best.
    """
    figures: dict[str, float] = {}

    # One object: what is it, and on which background?
    scenes = world.sample(n, "heldout", seed=101, objects=1)
    pictures = [scene.render(clip.image_size) for scene in scenes]
    ranks = Namer(clip).ranks(pictures, [(scene.concepts[0], scene.background) for scene in scenes])
    figures["zero_shot_top1"] = share(ranks.concepts == 1)
    figures["background_top1"] = share(ranks.backgrounds == 1)

    # Two objects: does the caption find its picture, and does the order of its words count?
    scenes = list({scene.caption: scene for scene in world.sample(2 * n, "heldout", seed=102, objects=2)}.values())[:n]
    image_features = clip.encode_images([scene.render(clip.image_size) for scene in scenes])  # [n, dim]
    here = torch.arange(len(scenes))

    def found_first(captions: list[str]) -> float:
        return share((clip.encode_texts(captions) @ image_features.T).argmax(1) == here)

    figures["retrieval_r1"] = found_first([scene.caption for scene in scenes])
    true = clip.encode_texts([scene.caption for scene in scenes])
    swapped = clip.encode_texts([scene.swapped().caption for scene in scenes])
    figures["word_order"] = share((image_features * true).sum(1) > (image_features * swapped).sum(1))
    wordings = zip(*(scene.captions(unseen=True) for scene in scenes), strict=True)
    unseen = [found_first(list(captions)) for captions in wordings]
    figures["paraphrase_r1"] = sum(unseen) / len(unseen)
    figures["paraphrase_drop"] = figures["retrieval_r1"] - figures["paraphrase_r1"]

    # Photographs: the training showed nothing like them
    photos = world.photos("skimage")
    labels = [photo.label for photo in photos] + list(world.PHOTO_DISTRACTORS)
    cosines = (
        clip.encode_images([photo.image for photo in photos])
        @ clip.encode_texts([f"a photo of {label}" for label in labels]).T
    )
    for row, photo in enumerate(photos):
        figures[f"photo_rank_{photo.name}"] = 1 + int((cosines[row] > cosines[row, row]).sum())
    return figures


def untrained_clip(name: str = POCKET) -> CLIP:
    """A fresh pocket CLIP ("pocket-clip"), or a fresh judge ("judge-clip"): the chance level of every figure."""
    trained = load_clip(POCKET)
    model = new_clip(1, name).eval().requires_grad_(False)
    return CLIP(model, trained.preprocess, trained.tokenizer, f"untrained {name}")


def report(options) -> Report:
    """`mmlesson eval clip` and `mmlesson eval judge`, with `options.n` scenes of each kind."""
    runtime.set_threads()
    judging = options.part == "judge"
    clip = load_judge() if judging and options.model is None else load_clip(options.model)
    figures = evaluate_clip(clip, options.n)
    chance = evaluate_clip(untrained_clip("judge-clip" if judging else POCKET), options.n)
    if judging:
        figures, chance = ({name: found[name] for name in OF_THE_JUDGE} for found in (figures, chance))
    title = f"{clip.name} on {options.n} held-out scenes of each kind"
    return Report(f"eval {options.part}", title, figures, {"untrained": chance})
