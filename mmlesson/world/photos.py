"""Real photographs that come with scikit-image."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Photo:
    """A real photograph that comes with scikit-image."""

    name: str
    label: str  # what it shows, with its article: "a cat"
    caption: str
    image: Image.Image

    def __repr__(self) -> str:
        return f"Photo({self.name!r}: {self.caption})"


_PHOTOS = (  # file in skimage/data, label, caption
    ("chelsea.png", "a cat", "a tabby cat looking into the camera"),
    ("astronaut.png", "an astronaut", "an astronaut in an orange suit in front of a flag"),
    ("coffee.png", "a cup of coffee", "a cup of coffee on a wooden table"),
    ("rocket.jpg", "a rocket", "a rocket on its launch pad at night"),
    ("motorcycle_left.png", "a motorcycle", "a red motorcycle in a garage"),
    ("moon.png", "the moon", "the surface of the moon"),
    ("coins.png", "money", "old Greek coins in rows"),
    ("camera.png", "a camera", "a man with a camera on a tripod"),
    ("horse.png", "a horse", "the black silhouette of a horse"),
    ("brick.png", "a brick", "a brick wall"),
)
PHOTO_DISTRACTORS = (  # with the ten labels, the twenty among which a photo's own has to be found
    *("a dog", "a pizza", "a guitar", "a bicycle", "a tree"),
    *("a fish", "a house", "a tulip", "a chair", "a bird"),
)


def photos() -> list[Photo]:
    """The photographs of scikit-image that show a nameable thing, as they come: RGB, of all sizes."""
    import skimage

    folder = pathlib.Path(skimage.__file__).parent / "data"
    shown = []
    for file, label, caption in _PHOTOS:
        image = Image.open(folder / file).convert("RGB")
        shown.append(Photo(file.split(".")[0].split("_")[0], label, caption, image))
    return shown
