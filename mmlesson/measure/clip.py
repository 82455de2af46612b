"""The measured quality of each pocket model, on held-out scenes alone: `mmlesson eval clip`.

Every figure is measured on the trained model and again on a fresh one of the same architecture: the
chance level shows that the measurement can fail. `--json` prints one flat object of numbers as the last
line, the chance level of each figure under `untrained_<name>`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from mmlesson import runtime, world


@dataclass(frozen=True)
class Bar:
    """What a figure has to reach for its model to be shipped."""

    least: float | None = None
    most: float | None = None
    above: float | None = None

    def met(self, value: float) -> bool:
        high = (self.least is None or value >= self.least) and (self.above is None or value > self.above)
        return high and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        if self.above is not None:
            return f"> {self.above:.2f}"
        return (
            f"≥ {self.least:.2f}"
            if self.least is not None
            else f"≤ {self.most:.2f}"
            if self.most is not None
            else "reported"
        )


CLIP_BARS = {
    "zero_shot_top1": Bar(least=0.95),
    "background_top1": Bar(least=0.98),
    "retrieval_r1": Bar(least=0.90),
    "word_order": Bar(least=0.90),
    "paraphrase_drop": Bar(most=0.05),
}
JUDGE_BARS = {"zero_shot_top1": Bar(least=0.95), "word_order": Bar(least=0.95)}
JUDGE_FIGURES = ("zero_shot_top1", "background_top1", "retrieval_r1", "word_order")
CLIP_MEANINGS = {
    "zero_shot_top1": "one object: its name first among all 597",
    "background_top1": "one object: the background's name first among 12",
    "retrieval_r1": "two objects: the caption finds its picture first",
    "word_order": "two objects: true caption above the swapped one",
    "paraphrase_r1": "retrieval with wordings that no training used",
    "paraphrase_drop": "what those wordings cost",
}


def evaluate_clip(clip, n: int = 1000) -> dict[str, float]:
    """Figures of a CLIP on held-out scenes of the pocket world and on real photos.

    clip: what `load_clip` returns. n: scenes of each kind (captions are distinct; 500 at least for a figure
    worth quoting). Returns shares in 0…1 under the names in CLIP_BARS, the retrieval with unseen wordings,
    and for each photo `photo_rank_<name>`: the rank of its true label among 20, 1 the best.
    """
    figures: dict[str, float] = {}

    # One object: what is it, and on which background?
    scenes = world.sample(n, "heldout", seed=101, objects=1)
    image_features = clip.encode_images([scene.render(clip.image_size) for scene in scenes])  # [n, dim]
    names = [concept.name for concept in world.concepts()]
    texts = clip.encode_texts([f"a picture of {concept}" for concept in world.concepts()])  # [597, dim]
    truth = [names.index(scene.concepts[0]) for scene in scenes]
    figures["zero_shot_top1"] = _share((image_features @ texts.T).argmax(1).tolist(), truth)

    things = world.concepts()[::24]  # a colour's embedding is the mean over 25 things in front of it
    colours = list(world.BACKGROUNDS)
    prompts = [f"{thing} on {world.with_article(colour)} background" for colour in colours for thing in things]
    texts = clip.encode_texts(prompts).unflatten(0, (len(colours), len(things))).mean(1)  # [12, dim]
    texts = texts / texts.norm(dim=-1, keepdim=True)
    truth = [colours.index(scene.background) for scene in scenes]
    figures["background_top1"] = _share((image_features @ texts.T).argmax(1).tolist(), truth)

    # Two objects: does the caption find its picture, and does the order of its words count?
    scenes = list({scene.caption: scene for scene in world.sample(2 * n, "heldout", seed=102, objects=2)}.values())[:n]
    image_features = clip.encode_images([scene.render(clip.image_size) for scene in scenes])
    here = list(range(len(scenes)))

    def found_first(captions: list[str]) -> float:
        return _share((clip.encode_texts(captions) @ image_features.T).argmax(1).tolist(), here)

    figures["retrieval_r1"] = found_first([scene.caption for scene in scenes])
    true = clip.encode_texts([scene.caption for scene in scenes])
    swapped = clip.encode_texts([scene.swapped().caption for scene in scenes])
    better = (image_features * true).sum(1) > (image_features * swapped).sum(1)
    figures["word_order"] = better.float().mean().item()
    wordings = zip(*(scene.captions(unseen=True) for scene in scenes), strict=True)
    unseen = [found_first(list(captions)) for captions in wordings]
    figures["paraphrase_r1"] = sum(unseen) / len(unseen)
    figures["paraphrase_drop"] = figures["retrieval_r1"] - figures["paraphrase_r1"]

    # Photographs: nothing like them was ever seen
    photos = world.photos()
    labels = [photo.label for photo in photos] + list(world.PHOTO_DISTRACTORS)
    cosines = (
        clip.encode_images([photo.image for photo in photos])
        @ clip.encode_texts([f"a photo of {label}" for label in labels]).T
    )
    for row, photo in enumerate(photos):
        figures[f"photo_rank_{photo.name}"] = 1 + int((cosines[row] > cosines[row, row]).sum())
    return figures


def untrained_clip(name: str = "pocket-clip"):
    """A fresh pocket CLIP, or a fresh judge: the chance level of every figure."""
    from mmlesson.clip import CLIP, load_clip
    from mmlesson.train.clip import new_model

    trained = load_clip("pocket-clip")
    model = new_model(1, name).eval().requires_grad_(False)
    return CLIP(model, trained.preprocess, trained.tokenizer, f"untrained {name}")


def table(
    figures: dict[str, float],
    chance: dict[str, float],
    bars: dict[str, Bar],
    meanings: dict[str, str],
    against: str = "untrained",
) -> str:
    """Markdown: figure, value, chance level (of what `against` names) where there is one, bar, whether it is met."""
    lines = [f"| figure | measured | {against} | bar | |", "| --- | ---: | ---: | --- | --- |"]
    for name, value in figures.items():
        bar = bars.get(name, Bar())
        met = "" if name not in bars else "met" if bar.met(value) else "MISSED"
        is_rank = name.startswith("photo_rank_")
        form = (lambda x: f"{x:.0f}") if is_rank else (lambda x: f"{x:.3f}")
        meaning = f": {meanings[name]}" if name in meanings else ": rank of its label among 20" if is_rank else ""
        beside = form(chance[name]) if name in chance else ""
        lines.append(f"| `{name}`{meaning} | {form(value)} | {beside} | {bar} | {met} |")
    return "\n".join(lines)


def _share(found: list[int], truth: list[int]) -> float:
    return sum(a == b for a, b in zip(found, truth, strict=True)) / len(truth)


def main(arguments) -> int:
    """`mmlesson eval clip` and `mmlesson eval judge`: a table, and with --json one flat JSON object as the last line."""
    from mmlesson.clip import load_clip, load_judge

    runtime.set_threads()
    judging = getattr(arguments, "model_kind", "clip") == "judge"
    n, name = getattr(arguments, "n", None) or 1000, getattr(arguments, "model", None)
    clip = load_judge() if judging and name is None else load_clip(name)
    figures = evaluate_clip(clip, n)
    chance = evaluate_clip(untrained_clip("judge-clip" if judging else "pocket-clip"), n)
    if judging:
        figures, chance = ({figure: values[figure] for figure in JUDGE_FIGURES} for values in (figures, chance))
    print(f"{clip.name} on {n} held-out scenes of each kind\n")
    print(table(figures, chance, JUDGE_BARS if judging else CLIP_BARS, CLIP_MEANINGS))
    if arguments.json:
        numbers = {name: round(value, 4) for name, value in figures.items()}
        numbers |= {f"untrained_{name}": round(value, 4) for name, value in chance.items()}
        print(json.dumps(numbers))
    return 0
