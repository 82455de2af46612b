"""Real photographs that come with the packages that the course needs anyway, and with foolbox.

scikit-image, scikit-learn and matplotlib bring the photographs of their examples. foolbox, a package that tests how
easily classifiers are fooled, brings twenty of things that ImageNet names, two dogs among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from mmlesson.pixels import load_image


@dataclass(frozen=True)
class Photo:
    """A real photograph that comes with a package."""

    name: str
    package: str
    label: str  # what it shows, with its article: "a cat"
    caption: str
    path: Path

    @property
    def image(self) -> Image.Image:
        """The photograph as it comes, of any size, in mode RGB."""
        return load_image(self.path)

    def __repr__(self) -> str:
        return f"Photo({self.name!r}: {self.caption})"


_PHOTOS = (  # package, file in it, name, label, caption
    ("skimage", "data/chelsea.png", "chelsea", "a cat", "a tabby cat looking into the camera"),
    ("skimage", "data/astronaut.png", "astronaut", "an astronaut", "an astronaut in an orange suit in front of a flag"),
    ("skimage", "data/coffee.png", "coffee", "a cup of coffee", "a cup of coffee on a wooden table"),
    ("skimage", "data/rocket.jpg", "rocket", "a rocket", "a rocket on its launch pad at night"),
    ("skimage", "data/motorcycle_left.png", "motorcycle", "a motorcycle", "a red motorcycle in a garage"),
    ("skimage", "data/moon.png", "moon", "the moon", "the surface of the moon"),
    ("skimage", "data/coins.png", "coins", "money", "old Greek coins in rows"),
    ("skimage", "data/camera.png", "camera", "a camera", "a man with a camera on a tripod"),
    ("skimage", "data/horse.png", "horse", "a horse", "the black silhouette of a horse"),
    ("skimage", "data/brick.png", "brick", "a brick", "a brick wall"),
    ("foolbox", "data/imagenet_00_243.jpg", "mastiff", "a dog", "a brown dog on a lead, on grass"),
    ("foolbox", "data/imagenet_16_251.jpg", "dalmatian", "a dog", "a spotted dog sniffing at the ground"),
    ("foolbox", "data/imagenet_17_22.jpg", "eagle", "an eagle", "a bald eagle flying"),
    ("foolbox", "data/imagenet_15_99.jpg", "geese", "geese", "three geese on grass"),
    ("foolbox", "data/imagenet_14_129.jpg", "spoonbill", "a bird", "two white birds on a wire"),
    ("foolbox", "data/imagenet_18_317.jpg", "leafhopper", "an insect", "a striped insect on a green leaf"),
    ("foolbox", "data/imagenet_19_305.jpg", "beetle", "a beetle", "a black beetle on stones"),
    ("foolbox", "data/imagenet_04_949.jpg", "strawberries", "strawberries", "red strawberries on a board"),
    ("foolbox", "data/imagenet_03_990.jpg", "chestnuts", "chestnuts", "chestnuts in their green prickly shells"),
    ("foolbox", "data/imagenet_06_609.jpg", "jeep", "a car", "a pale car on a gravel road"),
    ("foolbox", "data/imagenet_07_609.jpg", "offroad", "a car", "a blue car climbing over rocks"),
    ("foolbox", "data/imagenet_05_853.jpg", "cottage", "a house", "a white house with a thatched roof behind a lawn"),
    ("foolbox", "data/imagenet_08_915.jpg", "yurts", "a yurt", "two round tents in a forest"),
    ("foolbox", "data/imagenet_13_471.jpg", "cannon", "a cannon", "an old cannon on two wheels"),
    ("foolbox", "data/imagenet_10_541.jpg", "drum", "a drum", "a red drum with two sticks"),
    ("foolbox", "data/imagenet_11_630.jpg", "shoe", "a shoe", "a black leather shoe"),
    ("foolbox", "data/imagenet_01_559.jpg", "chairs", "a chair", "red folding chairs in a hall"),
    ("foolbox", "data/imagenet_09_455.jpg", "cap", "a bottle cap", "the red cap of a bottle"),
    ("foolbox", "data/imagenet_12_741.jpg", "windows", "stained glass", "two windows of coloured glass"),
    ("foolbox", "data/imagenet_02_438.jpg", "beaker", "a beaker", "a hand pouring liquid into a glass beaker"),
    ("sklearn", "datasets/images/china.jpg", "temple", "a temple", "a Chinese temple under a blue sky"),
    ("sklearn", "datasets/images/flower.jpg", "dahlia", "a flower", "a pink flower in front of leaves"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "hopper", "a woman", "a woman in a navy uniform"),
)
PHOTO_DISTRACTORS = (  # with the labels of scikit-image's ten, the twenty among which a photo's own has to be found
    *("a dog", "a pizza", "a guitar", "a bicycle", "a tree"),
    *("a fish", "a house", "a tulip", "a chair", "a bird"),
)


def photos(*packages: str) -> list[Photo]:
    """The photographs of packages that show a nameable thing; without a package's name, those of all four.

    packages: any of "skimage" (10), "foolbox" (20), "sklearn" (2) and "matplotlib" (1).
    Raises ValueError for another name, ModuleNotFoundError where a package is not installed.
    """
    known = dict.fromkeys(package for package, *_ in _PHOTOS)
    for package in packages:
        if package not in known:
            raise ValueError(f"there are photographs in {', '.join(known)}, not in {package!r}.")
    return [
        Photo(name, package, label, caption, _folder(package) / file)
        for package, file, name, label, caption in _PHOTOS
        if package in (packages or known)
    ]


def _folder(package: str) -> Path:
    """Where a package lies; it is not imported."""
    found = find_spec(package)
    if found is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return Path(found.origin).parent
