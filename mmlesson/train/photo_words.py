"""Short words for what photographs show: "a dog", "a person", "a boat". They teach the photo CLIP what is general.

A caption says "two girls in red shirts run", the classifier says "Chihuahua". Neither says "a person" or "an animal",
which is what people ask first. Two sources give each photograph such words: the nouns of its captions, and a table of
general words, each with the nouns and the names of the classifier that it covers.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Collection, Sequence

import torch

from mmlesson.models.photo_form import class_names

FREQUENT = 10  # pictures at least whose captions hold a noun, before it is learned

# General words: nouns of captions, then names of the classifier ("first … last": all names in this part of its list).
GENERAL = {
    "person": (
        "man woman boy girl child adult lady guy kid toddler player rider skier surfer climber skateboarder runner "
        "officer worker bride clown crowd team couple teenager cyclist biker dancer friend",
        "ballplayer, groom, scuba diver",
    ),
    "child": ("boy girl kid toddler baby", ""),
    "animal": ("dog cat horse bird cow sheep goat duck fish puppy bear camel elephant deer pigeon", "tench … puffer"),
    "pet": ("dog cat puppy", "Chihuahua … Mexican hairless, tabby … Egyptian cat, hamster, guinea pig, goldfish"),
    "dog": ("puppy poodle greyhound retriever collie terrier shepherd beagle", "Chihuahua … Mexican hairless"),
    "cat": ("kitten", "tabby … Egyptian cat"),
    "wild cat": ("tiger lion", "cougar … cheetah"),
    "bird": ("duck pigeon seagull swan", "cock … great grey owl, black grouse … black swan, white stork … albatross"),
    "fish": ("", "tench … stingray, barracouta … puffer"),
    "reptile": ("", "loggerhead … American alligator, thunder snake … sidewinder"),
    "lizard": ("", "banded gecko … Komodo dragon"),
    "snake": ("", "thunder snake … sidewinder"),
    "turtle": ("", "loggerhead … box turtle"),
    "frog": ("", "bullfrog … tailed frog"),
    "spider": ("", "black and gold garden spider … wolf spider"),
    "insect": ("bee", "tiger beetle … lycaenid"),
    "butterfly": ("", "admiral … lycaenid"),
    "crab": ("", "Dungeness crab … king crab"),
    "monkey": ("", "orangutan … squirrel monkey"),
    "bear": ("", "brown bear … sloth bear"),
    "elephant": ("", "Indian elephant, African elephant"),
    "vehicle": (
        "car bus truck train bicycle motorcycle motorbike van boat jeep wagon tricycle",
        "airliner, ambulance, beach wagon, bicycle-built-for-two, bullet train, cab, convertible, fire engine, "
        "garbage truck, go-kart, golfcart, jeep, limousine, minibus, minivan, Model T, moped, motor scooter, "
        "mountain bike, moving van, passenger car, pickup, police van, racer, recreational vehicle, school bus, "
        "snowmobile, snowplow, sports car, steam locomotive, streetcar, tank, tow truck, tractor, trailer truck, "
        "tricycle, trolleybus, unicycle",
    ),
    "car": (
        "jeep racer",
        "ambulance, beach wagon, cab, convertible, jeep, limousine, minivan, Model T, racer, sports car",
    ),
    "truck": (
        "",
        "fire engine, garbage truck, moving van, pickup, tow truck, trailer truck",
    ),
    "bus": ("", "minibus, school bus, trolleybus"),
    "train": ("", "bullet train, electric locomotive, passenger car, steam locomotive, streetcar, freight car"),
    "bicycle": ("bike", "bicycle-built-for-two, mountain bike, tricycle, unicycle"),
    "motorcycle": ("motorbike", "moped, motor scooter"),
    "boat": (
        "canoe kayak raft sailboat ship",
        "aircraft carrier, canoe, catamaran, container ship, fireboat, gondola, lifeboat, liner, pirate, schooner, "
        "speedboat, trimaran, yawl",
    ),
    "aircraft": ("airplane plane helicopter jet", "airliner, airship, balloon, warplane, space shuttle"),
    "rocket": ("", "missile, projectile, space shuttle"),
    "building": (
        "house church barn restaurant store shop hospital",
        "barn, boathouse, castle, church, cinema, dome, greenhouse, library, monastery, mosque, palace, planetarium, "
        "prison, restaurant, stupa, triumphal arch, yurt, bell cote, cliff dwelling, grocery store",
    ),
    "temple": ("church", "mosque, stupa, monastery, bell cote, church"),
    "bridge": ("", "steel arch bridge, suspension bridge, viaduct"),
    "furniture": (
        "chair table bed couch sofa bench desk stool",
        "barber chair, bookcase, chiffonier, china cabinet, cradle, crib, desk, dining table, file, folding chair, "
        "four-poster, park bench, rocking chair, studio couch, throne, wardrobe, table lamp, pool table",
    ),
    "chair": ("stool", "barber chair, folding chair, rocking chair, throne"),
    "table": ("desk", "dining table, desk, pool table"),
    "lamp": ("", "table lamp, lampshade, spotlight, torch"),
    "musical instrument": (
        "guitar drum violin flute accordion piano",
        "accordion, acoustic guitar, banjo, bassoon, cello, chime, cornet, drum, electric guitar, flute, French horn, "
        "gong, grand piano, harmonica, harp, maraca, marimba, oboe, ocarina, organ, panpipe, sax, steel drum, "
        "trombone, upright, violin",
    ),
    "guitar": ("", "acoustic guitar, electric guitar, banjo"),
    "horn": ("", "cornet, French horn, trombone, sax"),
    "piano": ("", "grand piano, upright"),
    "food": (
        "cake fruit candy corn apple bread pizza",
        "guacamole … eggnog",
    ),
    "fruit": ("apple orange", "Granny Smith … pomegranate"),
    "vegetable": ("corn", "head cabbage … cardoon"),
    "beverage": ("beer coffee soda wine", "red wine, espresso, eggnog, beer glass, beer bottle"),
    "cup": ("mug glass", "cup, coffee mug, beer glass, goblet, measuring cup"),
    "bottle": ("", "beer bottle, pill bottle, pop bottle, water bottle, wine bottle, water jug, whiskey jug"),
    "flower": ("", "daisy, yellow lady's slipper, rapeseed"),
    "plant": ("tree flower bush grass", "daisy, yellow lady's slipper, rapeseed, corn, acorn, hip, buckeye, pot"),
    "mushroom": ("", "coral fungus … bolete, mushroom"),
    "ball": (
        "soccer football basketball baseball volleyball",
        "baseball, basketball, croquet ball, golf ball, ping-pong ball, rugby ball, soccer ball, tennis ball, "
        "volleyball, punching bag",
    ),
    "clothes": (
        "shirt jacket pants jeans shorts coat dress sweater skirt uniform suit",
        "abaya, academic gown, apron, bikini, cardigan, cloak, fur coat, gown, jean, jersey, kimono, lab coat, "
        "maillot, miniskirt, overskirt, pajama, poncho, sarong, stole, suit, sweatshirt, swimming trunks, trench coat, "
        "vestment, bulletproof vest, military uniform",
    ),
    "hat": ("cap helmet", "bathing cap, bearskin, bonnet, cowboy hat, mortarboard, pickelhaube, shower cap, sombrero"),
    "shoe": ("boot sandal sneaker", "clog, cowboy boot, Loafer, running shoe, sandal"),
    "camera": ("", "Polaroid camera, reflex camera"),
    "computer": ("", "desktop computer, hand-held computer, laptop, notebook, monitor, computer keyboard"),
    "telephone": ("cellphone phone", "cellular telephone, dial telephone, pay-phone"),
    "clock": ("watch", "analog clock, digital clock, digital watch, hourglass, stopwatch, sundial, wall clock"),
    "weapon": ("gun sword knife", "assault rifle, bow, cannon, cleaver, missile, revolver, rifle, hatchet"),
    "tool": (
        "shovel hammer rake",
        "broom, can opener, chain saw, corkscrew, hammer, hatchet, ladle, plunger, power drill, screwdriver, shovel, "
        "spatula, paintbrush, plow, nail, screw",
    ),
    "toy": ("", "teddy, pinwheel, jigsaw puzzle, toyshop, swing"),
    "sign": ("", "street sign, traffic light, scoreboard"),
    "text": ("", "web site, comic book, crossword puzzle, book jacket, menu, envelope, packet, notebook"),
    "book": ("", "book jacket, comic book, bookshop, library, notebook, binder"),
    "wall": ("brick", "stone wall, picket fence, chainlink fence, worm fence, megalith"),
    "mountain": ("cliff hill rock", "alp, cliff, volcano, valley"),
    "water": ("lake ocean river pond pool sea", "lakeside, seashore, coral reef, geyser, sandbar, breakwater, dam"),
    "beach": ("shore", "seashore, sandbar, promontory"),
}
# Words that a dictionary lists as nouns, and captions use for something else.
OTHERS = frozenset("back being bottom bound dry down fast front get help high hind hold lead lift low top well".split())
IRREGULAR = {"men": "man", "women": "woman", "children": "child", "people": "person", "puppies": "puppy"}


class Words:
    """The words, and which of them belong to photographs and to the classifier's names.

    words      the words, each once
    pictures   float32 [n_pictures, n_words]; of each picture the share of each word, the sum is 1, or 0 without a word
    classes    float32 [1000, n_words]; of each name of the classifier likewise, general words only
    """

    def __init__(self, captions: Sequence[Sequence[str]], nouns: Collection[str]):
        spoken = [[_nouns_of(caption, nouns) for caption in several] for several in captions]
        counts = Counter(noun for several in spoken for noun in set().union(*several))
        frequent = sorted(noun for noun, n in counts.items() if n >= FREQUENT)
        self.words = list(dict.fromkeys([*GENERAL, *frequent]))
        place = {word: number for number, word in enumerate(self.words)}
        self.pictures = torch.zeros(len(captions), len(self.words))
        for row, several in zip(self.pictures, spoken, strict=True):
            for said in several:
                for word in said.union(*(general_words(noun) for noun in said)):
                    if word in place:
                        row[place[word]] += 1
        self.classes = torch.zeros(1000, len(self.words))
        for general, (_, names) in GENERAL.items():
            self.classes[classes_of(names), place[general]] = 1
        for table in (self.pictures, self.classes):
            table /= table.sum(1, keepdim=True).clamp(min=1)


@functools.cache
def general_words(noun: str) -> frozenset[str]:
    """The general words for a noun, and those for these: "beagle" is "dog", so it is "pet" and "animal" too."""
    found = {general for general, (members, _) in GENERAL.items() if noun in members.split()}
    return frozenset(found.union(*(general_words(word) for word in found if word != noun)))


@functools.cache
def _class_numbers() -> dict[str, int]:
    """The number of each of the classifier's names by its first synonym; where two have the same, the first one's."""
    return {synonyms[0]: number for number, synonyms in reversed(list(enumerate(class_names())))}


def classes_of(names: str) -> list[int]:
    """The numbers of the classifier's names in a list "name, first … last, name". Raises KeyError for another name."""
    number = _class_numbers()
    found: list[int] = []
    for part in filter(None, (part.strip() for part in names.split(","))):
        first, _, last = part.partition(" … ")
        found += range(number[first], number[last or first] + 1)
    return found


def _nouns_of(caption: str, nouns: Collection[str]) -> set[str]:
    """The nouns of a caption, in the singular."""
    found = set()
    for word in re.findall(r"[a-z]+", caption.lower()):
        singular = IRREGULAR.get(word) or (word[:-1] if word.endswith("s") and word[:-1] in nouns else word)
        if (singular in nouns and singular not in OTHERS) or singular in GENERAL:
            found.add(singular)
    return found
