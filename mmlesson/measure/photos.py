"""The measured quality of the photo CLIP: `mmlesson eval photos --data FOLDER`.

FOLDER/captions.tsv and FOLDER/pictures/ hold captioned photographs, whose split "test" no training saw. If there is a
FOLDER/caltech/, it holds a folder of photographs for each name, as Caltech-101 has them. Beside them stand the
photographs that packages bring. Every figure is also measured on a fresh CLIP of the same form (`untrained_…`) and on
the pocket CLIP (`pocket_…`).

The photographs are the reader's own, so these figures are neither stored nor a part of `mmlesson eval all`.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mmlesson import runtime, words, world
from mmlesson.clip import CLIP, PHOTO, POCKET, load_clip
from mmlesson.measure.namer import share
from mmlesson.measure.report import Report
from mmlesson.models.familiar import UNFAMILIAR
from mmlesson.models.photo_form import CONTEXT_LENGTH, NAME, PREPROCESS, SIDE, class_names, new_photo_clip
from mmlesson.photo_folder import Captioned, read_captions
from mmlesson.pixels import walk_images
from mmlesson.search.absent import FALSE_HITS, sentences

SUBJECTS = ("a cat", "a dog", "a person")


@dataclass(frozen=True)
class Everyday:
    """A photograph that a package brings, and what it shows."""

    package: str
    file: str  # in the folder of the package
    label: str  # with its article


# Frozen before the first training: neither a photograph nor a label has been changed since.
EVERYDAY = (
    Everyday("skimage", "data/chelsea.png", "a cat"),
    Everyday("skimage", "data/astronaut.png", "an astronaut"),
    Everyday("skimage", "data/coffee.png", "a cup of coffee"),
    Everyday("skimage", "data/rocket.jpg", "a rocket"),
    Everyday("skimage", "data/motorcycle_left.png", "a motorcycle"),
    Everyday("skimage", "data/moon.png", "the moon"),
    Everyday("skimage", "data/coins.png", "coins"),
    Everyday("skimage", "data/camera.png", "a man with a camera"),
    Everyday("skimage", "data/horse.png", "a horse"),
    Everyday("skimage", "data/brick.png", "a brick wall"),
    Everyday("skimage", "data/grass.png", "grass"),
    Everyday("skimage", "data/gravel.png", "gravel"),
    Everyday("skimage", "data/page.png", "a page of a book"),
    Everyday("skimage", "data/text.png", "handwriting"),
    Everyday("skimage", "data/hubble_deep_field.jpg", "stars and galaxies"),
    Everyday("sklearn", "datasets/images/china.jpg", "a temple"),
    Everyday("sklearn", "datasets/images/flower.jpg", "a flower"),
    Everyday("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "a woman in uniform"),
)
EVERYDAY_DISTRACTORS = (  # with the eighteen labels, the thirty among which a photograph's own has to be found
    "a dog",
    "a bird",
    "a fish",
    "a car",
    "a bicycle",
    "a pizza",
    "a guitar",
    "a tree",
    "a chair",
    "a beach",
    "a house",
    "a child playing football",
)

PERSON = frozenset(
    "person people man men woman women boy boys girl girls child children kid kids baby toddler "
    "lady guy crowd player players rider".split()
)
DOG = frozenset("dog dogs puppy puppies".split())
CAT = frozenset("cat cats kitten kittens kitty".split())
OTHER_ANIMALS = frozenset(
    "animal animals horse horses cow cows bird birds sheep goat goats duck ducks elephant camel donkey bull".split()
)


def subject(captions: Sequence[str]) -> str:
    """One of SUBJECTS, where every caption names it, and none another of them or an animal; else ""."""
    said = [set(re.findall(r"[a-z]+", caption.lower())) for caption in captions]
    kinds = dict(zip(SUBJECTS, (CAT, DOG, PERSON), strict=True))
    named = [name for name, words in kinds.items() if any(words & one for one in said)]
    if len(named) != 1 or any(OTHER_ANIMALS & one for one in said):
        return ""
    return named[0] if all(kinds[named[0]] & one for one in said) else ""


def _readable(clip: CLIP, caption: str) -> str:
    """The caption; for one that says nothing to this CLIP, the emptiest that it reads: it has to count as a miss."""
    try:
        words.check(clip.name, [caption], None if clip.vocabulary is None else clip.vocabulary.__contains__)
    except ValueError:
        return "a picture"
    return caption


def captions_and_pictures(clip: CLIP, pictures: Sequence[Captioned]) -> dict[str, float]:
    """Retrieval both ways, and who is who among the pictures of one cat, dog or person."""
    image_features = clip.encode_images([picture.path for picture in pictures])  # [n, dim]
    first = clip.encode_texts([_readable(clip, picture.captions[0]) for picture in pictures])
    cosines = first @ image_features.T  # [n, n]
    ranks = (cosines >= cosines.diag()[:, None]).sum(1)  # 1 the best; where all are alike, nothing was found
    figures = {"caption_r1": share(ranks <= 1), "caption_r10": share(ranks <= 10)}

    owner = torch.tensor([number for number, picture in enumerate(pictures) for _ in picture.captions])
    every = clip.encode_texts([_readable(clip, caption) for picture in pictures for caption in picture.captions])
    found = owner[(image_features @ every.T).topk(min(10, len(every))).indices]  # [n, 10]
    figures["pictures_r10"] = share((found == torch.arange(len(pictures))[:, None]).any(1))

    shown = [subject(picture.captions) for picture in pictures]
    rows = [number for number, who in enumerate(shown) if who]
    if rows:
        truth = torch.tensor([SUBJECTS.index(shown[number]) for number in rows])
        texts = clip.encode_texts([f"a picture of {name}" for name in SUBJECTS])
        figures["cat_dog_person"] = share((image_features[rows] @ texts.T).argmax(1) == truth)
        figures["cat_dog_person_pictures"] = len(rows)
    return figures


def named_folders(clip: CLIP, folder: Path, seen_texts: Iterable[str]) -> dict[str, float]:
    """Zero-shot classification of the pictures in folders that are called as what they show.

    seen_texts: what the training said of pictures; a name that stands in none of them is unseen.
    Raises ValueError, with a sentence, where no such folder holds a picture.
    """
    found = {path.name: sorted(walk_images(path)) for path in sorted(folder.iterdir()) if path.is_dir()}
    names = [name for name, files in found.items() if files]
    if not names:
        raise ValueError(f"{folder} has no folder with pictures: each is called as what its pictures show.")
    image_features = clip.encode_images([file for name in names for file in found[name]])  # [n, dim]
    texts = clip.encode_texts([f"a photo of a {name}" for name in names])
    truth = torch.tensor([number for number, name in enumerate(names) for _ in found[name]])
    right = (image_features @ texts.T).topk(min(5, len(names))).indices == truth[:, None]  # [n, 5]
    figures = {"names_top1": share(right[:, 0]), "names_top5": share(right.any(1))}

    said = " | ".join(" ".join(re.findall(r"[a-z0-9]+", text.lower())) for text in seen_texts)
    unseen = torch.tensor([not re.search(rf"\b{re.escape(name.lower())}s?\b", said) for name in names])
    figures["unseen_names"] = int(unseen.sum())
    if unseen.any():
        figures["unseen_names_top1"] = share(right[:, 0][unseen[truth]])
    return figures


def everyday_ranks(clip: CLIP) -> dict[str, int]:
    """Of each photograph that packages bring: the rank of its label among the thirty, 1 the best."""
    labels = [photo.label for photo in EVERYDAY] + list(EVERYDAY_DISTRACTORS)
    files = [Path(importlib.import_module(photo.package).__file__).parent / photo.file for photo in EVERYDAY]
    cosines = clip.encode_images(files) @ clip.encode_texts([f"a photo of {label}" for label in labels]).T
    return {
        photo.label: int((row >= row[number]).sum())
        for number, (photo, row) in enumerate(zip(EVERYDAY, cosines, strict=True))
    }


def evaluate_photos(clip: CLIP, folder: Path) -> dict[str, float]:
    """All figures of a CLIP, under the names of "eval photos" in bars.py: shares in 0…1, and `everyday`, a count.

    folder: captioned pictures; those of its split "test" are asked for, and `folder/caltech`, where it is there.
    """
    figures = captions_and_pictures(clip, read_captions(folder, "test"))
    if (folder / "caltech").is_dir():
        learned = [caption for picture in read_captions(folder, "train") for caption in picture.captions]
        seen = learned + [name for names in class_names() for name in names]
        figures |= named_folders(clip, folder / "caltech", seen)
    figures["everyday"] = sum(rank == 1 for rank in everyday_ranks(clip).values())
    return figures


def unfamiliar(clip: CLIP, own: Sequence, others: Sequence) -> dict[str, float]:
    """The shares of pictures of a CLIP's own kind, and of another kind, that it calls unfamiliar."""
    return {
        "unfamiliar_own": share(clip.familiar(own) < UNFAMILIAR),
        "unfamiliar_other": share(clip.familiar(others) < UNFAMILIAR),
    }


def kinds(clip: CLIP, folder: Path, n_scenes: int = 300) -> dict[str, float]:
    """Whether the two CLIPs of the course know their own kind of pictures: photographs and scenes, both held out.

    Nothing for a CLIP without statistics.
    """
    if clip.familiarity is None:
        return {}
    photographs = [picture.path for picture in read_captions(folder, "test")]
    scenes = [scene.render(256) for scene in world.sample(n_scenes, "heldout", seed=77)]
    figures = unfamiliar(clip, photographs, scenes)
    if (folder / "caltech").is_dir():
        figures["unfamiliar_named"] = share(clip.familiar(sorted(walk_images(folder / "caltech"))) < UNFAMILIAR)
    pocket = unfamiliar(load_clip(POCKET), scenes, photographs)
    return figures | {f"{name}_of_pocket": value for name, value in pocket.items()}


# Themes of a photograph album: words that name them in captions, and queries for them. A collection without a theme is
# made by taking out each picture of which one caption has one of the words. Frozen before the first measurement.
THEMES = {
    "boats": (
        "boat boats canoe kayak kayaks kayaker raft rafting sailboat ship surfboard surfer surfing surf surfs",
        ("a boat on the water", "a canoe on a river", "a person in a kayak", "a sailboat on a lake"),
    ),
    "dogs": (
        "dog dogs puppy puppies greyhound greyhounds",
        ("a dog running on grass", "a black dog", "a dog with a ball in its mouth", "two dogs playing"),
    ),
    "wheels": (
        "bike bikes bicycle bicycles biker bikers bicyclist cyclist cyclists biking bicycling cycling motorcycle "
        "motorbike motorcyclist dirtbike",
        ("a man riding a bicycle", "a bicycle race", "a child on a bike", "a motorcycle"),
    ),
    "snow": (
        "snow snowy ski skis skier skiers skiing snowboard snowboarder snowboarding sled ice",
        ("a person skiing down a mountain", "snow on the ground", "a snowboarder in the air"),
    ),
    "football": (
        "football soccer rugby",
        ("children playing football", "a football player with a ball", "a soccer match"),
    ),
    "basketball": ("basketball", ("a basketball game", "a man playing basketball")),
    "mountains": (
        "climb climbing climber climbs climbers rock rocks cliff mountain mountains",
        ("a man climbing a rock", "a climber on a cliff", "a mountain"),
    ),
    "swimming": (
        "swim swimming pool swimmer swims",
        ("a child in a swimming pool", "a swimmer"),
    ),
    "skateboards": (
        "skateboard skateboarder skateboarding skateboarders skate skates skating skater",
        ("a boy on a skateboard", "a skateboarder doing a trick"),
    ),
    "beaches": (
        "beach ocean sea sand waves wave shore sandy surf surfer surfing surfboard",
        ("people on the beach", "waves of the sea", "a child playing in the sand"),
    ),
    "horses": ("horse horses rodeo cowboy", ("a man riding a horse", "a horse")),
    "babies": ("baby infant toddler", ("a baby", "a baby in a crib")),
    "cars": ("car cars truck vehicle race automobile", ("a red car", "cars on a street")),
    "playgrounds": (
        "swing swings slide slides playground",
        ("a child on a swing", "a slide on a playground"),
    ),
    "music": (
        "guitar band concert musician music stage microphone sings singing instrument drums",
        ("a man playing a guitar", "a band on a stage", "a singer with a microphone"),
    ),
    "trampolines": ("trampoline gymnast gymnastics", ("a boy jumping on a trampoline", "a gymnast")),
}


def nothing_fits(clip: CLIP, pictures: Sequence[Captioned]) -> dict[str, float]:
    """How well an index finds its own threshold of "nothing fits" (`ImageIndex.calibrate` without sentences).

    For each theme, an index of the pictures without it: the share of its queries that find something is
    `nothing_false_hits`. In the index of all pictures, the share of the queries that find nothing is `nothing_misses`.
    """
    features = clip.encode_images([picture.path for picture in pictures])  # [n, dim]
    said = [set(re.findall(r"[a-z]+", " ".join(picture.captions).lower())) for picture in pictures]
    absent = clip.encode_texts(sentences(clip))

    def found(rows: torch.Tensor, queries: Sequence[str]) -> torch.Tensor:
        threshold = (absent @ features[rows].T).amax(1).quantile(1 - FALSE_HITS)  # as `calibrate` does
        return (clip.encode_texts(queries) @ features[rows].T).amax(1) >= threshold

    everything = torch.ones(len(pictures), dtype=torch.bool)
    false_hits, hits = [], []
    for naming, queries in THEMES.values():
        without = torch.tensor([not set(naming.split()) & words for words in said])
        if without.all() or not without.any():
            continue  # the collection never had it, or has nothing else
        false_hits.append(found(without, queries))
        hits.append(found(everything, queries))
    if not hits:
        return {}
    return {"nothing_false_hits": share(torch.cat(false_hits)), "nothing_misses": 1 - share(torch.cat(hits))}


def untrained_photo_clip() -> CLIP:
    """A fresh CLIP of the same form: the chance level of every figure."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    preprocess = image_transform_v2(PreprocessCfg(size=SIDE, **PREPROCESS), is_train=False)
    tokenizer = open_clip.SimpleTokenizer(context_length=CONTEXT_LENGTH)
    return CLIP(new_photo_clip(1).eval().requires_grad_(False), preprocess, tokenizer, f"untrained {NAME}")


def report(options) -> Report:
    """`mmlesson eval photos`, with the photographs in `options.data`."""
    runtime.set_threads()
    clip = load_clip(options.model or PHOTO)
    figures = evaluate_photos(clip, options.data)
    figures |= nothing_fits(clip, read_captions(options.data, "test")) | kinds(clip, options.data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of words that the pocket CLIP never met
        beside = {
            "untrained": evaluate_photos(untrained_photo_clip(), options.data),
            "pocket": evaluate_photos(load_clip(POCKET), options.data),
        }
    ranks = ", ".join(f"{label} {rank}" for label, rank in everyday_ranks(clip).items())
    pocket = ", ".join(f"{name} {value:.3g}" for name, value in beside["pocket"].items())
    notes = [f"The same of the pocket CLIP: {pocket}.", f"Ranks of the everyday photographs: {ranks}."]
    return Report("eval photos", f"{clip.name} on photographs", figures, beside, notes=notes)
