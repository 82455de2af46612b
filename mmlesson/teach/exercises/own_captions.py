"""Open tasks of lesson 1: wrong captions that ask for word order, and captions that a CLIP takes for each other."""

from __future__ import annotations

import functools
import math
import warnings

from mmlesson.teach.exercises.captions import name_unknown, the_clip
from mmlesson.teach.exercises.checking import Case, NotYet, every, exercise, text, two
from mmlesson.teach.exercises.words import Meaning, split, understand

SCENES = (  # things, background, relation: names of one word and of more, one that holds "on", and one thing alone
    (("owl", "rocket"), "turquoise", "above"),
    (("four leaf clover", "ice cream"), "red", "left of"),
    (("meat on bone", "elephant"), "white", "above"),
    (("grapes", "T-Rex"), "green", "left of"),
    (("umbrella",), "yellow", "above"),
    (("dog", "open book"), "black", "left of"),
)
STANDS_BEFORE_NO_NAME = {"a", "an", "and", "in", "of", "on", "above", "below", "over", "under"}


@functools.cache
def _scenes() -> tuple:
    from mmlesson import world

    return tuple(
        world.scene(*names, background=background, relation=relation, seed=8) for names, background, relation in SCENES
    )


@exercise(
    "1.8",
    "take the caption apart where it says how the two things stand, and where the background begins. Put it together "
    "again with the two things exchanged. A thing's article goes with it.",
    'caption.partition(" left of ") gives what stands before, the words themselves, and what stands after. '
    'The background begins at the last " on a" of what stands after. A caption without “left of” and “above” '
    "needs no wrong one: return an empty list.",
)
def _wrong_captions(answer) -> str:
    found = {}
    every(
        answer,
        [Case(f"For “{scene.caption}”", (scene.caption,)) for scene in _scenes()],
        lambda case, wrong: found.update({case.given[0]: _judge_wrong_captions(case.given[0], wrong)}),
    )
    in_order = [sum(sorted(split(each)) == sorted(split(true)) for each in wrong) for true, wrong in found.items()]
    least = sum(math.log(1 + each) for each in in_order) / len(in_order)
    return (
        f"{sum(map(len, found.values()))} wrong captions for {len(found)} scenes. Without them, a model that ignores "
        f"the order of words can bring the loss near 0; with them, not below {least:.2f}. {_how_near(found)}"
    )


def _judge_wrong_captions(true: str, wrong) -> list[str]:
    """The wrong captions of one scene, if they are that; NotYet otherwise."""
    if isinstance(wrong, str) or not isinstance(wrong, (list, tuple)):
        raise NotYet("a list of captions is asked for.")
    wrong = [text(each) for each in wrong]
    meant = understand(true)
    for each in wrong:
        meaning = understand(each)
        if meaning.unknown or not meaning.things or _is_broken(each):
            raise NotYet(f"“{each}” is no caption of this world.{name_unknown(meaning)}")
        if meaning.scene == meant.scene:
            raise NotYet(f"“{each}” is not wrong: it says the same.")
    if len(meant.things) == 2 and not any(sorted(split(each)) == sorted(split(true)) for each in wrong):
        came = f"“{wrong[0]}”" if wrong else "an empty list"
        raise NotYet(f"no wrong caption holds the same words as the true one, so the order is not asked for: {came}.")
    return wrong


def _is_broken(caption: str) -> bool:
    """Whether an article stands before no name, or the caption ends in a preposition: words that were only shuffled."""
    words = split(caption)
    cut = any(
        one in ("a", "an") and other in STANDS_BEFORE_NO_NAME for one, other in zip(words, words[1:], strict=False)
    )
    return cut or words[-1] in STANDS_BEFORE_NO_NAME or words[0] == "background"


def _how_near(found: dict[str, list[str]]) -> str:
    """A sentence: the mean cosine of the pictures with their true captions, the wrong ones, and one another's."""
    clip = the_clip()
    features = clip.encode_images([scene.render(clip.image_size) for scene in _scenes()])  # [n, dim]
    captions = [scene.caption for scene in _scenes()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cosines = features @ clip.encode_texts(captions).T  # [n, n]
        wrong = [
            (features[place] @ clip.encode_texts([each])[0]).item()
            for place, true in enumerate(captions)
            for each in found[true]
        ]
    n = len(captions)
    true, others = cosines.diagonal().mean().item(), (cosines.sum() - cosines.trace()).item() / (n * (n - 1))
    return (
        f"{clip.name} gives the true captions a mean cosine of {true:.2f} with their pictures, yours "
        f"{sum(wrong) / len(wrong):.2f}, and captions of other scenes {others:.2f}: the nearer, the harder."
    )


# ---------------------------------------------------------------------------------------------------
# A failure of one's own

KINDS = {  # what two meanings can differ in, and how a verdict names it
    "negated": "whether something is there or not",
    "number": "how many there are",
    "traits": "what a thing is like",
    "colours": "which colour a thing has",
    "deed": "which of the things does something to the other, or is in front of it",
    "above": "which thing is above",
    "left": "which thing is on the left",
    "background": "what colour is behind",
    "things": "which things are there",
}


def _parts(meaning: Meaning) -> dict[str, object]:
    """A meaning in parts, one for each of KINDS. What a thing is like stands with its thing."""
    described = sorted(zip(meaning.things, meaning.colours, meaning.traits, strict=True))
    return {
        "negated": meaning.negated,
        "number": [[each for each in traits if each.isdigit()] for _, _, traits in described] + [meaning.many],
        "traits": [[each for each in traits if not each.isdigit()] for _, _, traits in described],
        "colours": [colour for _, colour, _ in described],
        "deed": meaning.deed,
        "above": meaning.above,
        "left": meaning.left,
        "background": sorted(meaning.background),
        "things": sorted(meaning.things),
    }


@functools.cache
def _same_meaning() -> float:
    """A quarter of all pairs of captions that mean the same have a lower cosine than this, for the CLIP in use."""
    from mmlesson import world

    scenes = world.sample(60, "heldout", seed=31)
    clip = the_clip()
    one, other = (
        clip.encode_texts([scene.captions()[place] for scene in scenes]) for place in (0, 3)
    )  # [60, dim] each
    return (one * other).sum(dim=1).quantile(0.25).item()


@exercise(
    "1.9",
    "what did no training caption of this model ask for? Write one pair in which only that differs, look at its "
    "cosine, and try the same with other things.",
    "captions of the training never said “behind” or “in front of”. A pair such as “a … behind a … on red” "
    "with its two things exchanged differs in that alone.",
)
def _taken_for_each_other(answer) -> str:
    if isinstance(answer, (str, bytes)) or not isinstance(answer, (list, tuple)):
        raise NotYet("A list of three pairs is asked for.")
    if len(answer) != 3:
        raise NotYet(f"Three pairs are asked for, and yours are {len(answer)}.")
    pairs = [tuple(map(text, two(pair, "Each pair is two captions."))) for pair in answer]
    kinds = [_differ_in(pair) for pair in pairs]
    subjects = [frozenset(understand(pair[0]).things) for pair in pairs]
    if len(set(subjects)) < 3:
        raise NotYet("Two of the pairs are about the same things: one of them may be an accident. Take other things.")
    shared = [kind for kind in KINDS if all(kind in each for each in kinds)]
    if not shared:
        said = "; ".join(", ".join(KINDS[kind] for kind in each) for each in kinds)
        raise NotYet(f"The pairs differ in different ways ({said}). Find three that differ in the same way.")
    cosines, same = [_cosine(pair) for pair in pairs], _same_meaning()
    for pair, cosine in zip(pairs, cosines, strict=True):
        if cosine < same:
            raise NotYet(
                f"“{pair[0]}” and “{pair[1]}” have a cosine of {cosine:.3f}. Two wordings with one meaning "
                f"mostly have more than {same:.3f}: the model tells yours apart."
            )
    unmet = the_clip().unknown_words([each for pair in pairs for each in pair])
    why = f" Its training never held {', '.join(f'“{word}”' for word in unmet)}." if unmet else ""
    return (
        f"The captions differ in {KINDS[shared[0]]}, and the model hardly sees it: cosines of "
        f"{', '.join(f'{cosine:.3f}' for cosine in cosines)}, where two wordings with one meaning "
        f"mostly have more than {same:.3f}.{why}"
    )


def _differ_in(pair: tuple[str, str]) -> list[str]:
    """The KINDS in which two captions differ; NotYet where they mean the same, or where one means nothing here."""
    one, other = map(understand, pair)
    for caption, meaning in zip(pair, (one, other), strict=True):
        if not meaning.things:
            raise NotYet(f"“{caption}” names nothing that the pocket world can show.{name_unknown(meaning)}")
    if one.scene == other.scene:
        unknown = dict.fromkeys(one.unknown + other.unknown)
        note = f" Not known here: {', '.join(f'“{word}”' for word in unknown)}." if unknown else ""
        raise NotYet(f"“{pair[0]}” and “{pair[1]}” mean the same, as far as this check can read.{note}")
    parts, others = _parts(one), _parts(other)
    return [kind for kind in KINDS if parts[kind] != others[kind]]


def _cosine(pair: tuple[str, str]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it never met a word may be the reason
        one, other = the_clip().encode_texts(list(pair))
    return (one @ other).item()
