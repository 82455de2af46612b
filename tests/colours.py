"""What the tests of image search share: a stand-in for a CLIP, small pictures, and how to compare two indexes.

`Colours` embeds a picture as a tiny picture: it is fast, and equal pictures have equal vectors.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from mmlesson import ImageIndex
from mmlesson.pixels import load_image

WORDS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0), "white": (1.0, 1.0, 1.0)}


class Colours:
    """A picture is its 4 × 4 colours, a text the colours that it names.

    `batches` holds the size of each batch that was embedded.
    """

    image_size, dim = 4, 49
    knows, familiarity = "colours", None  # what `mmlesson search` asks of a CLIP

    def __init__(self, name="colours", salt=""):
        self.name, self.salt, self.batches = name, salt, []

    def fingerprint(self):
        return f"{self.name} {self.salt}"

    def prepare(self, image):
        small = load_image(image).resize((4, 4), Image.Resampling.BOX)
        return torch.from_numpy(np.asarray(small).copy()).float() / 255  # [4, 4, 3]

    def encode_prepared(self, prepared):
        self.batches.append(len(prepared))
        flat = torch.stack(list(prepared)).flatten(1) - 0.5  # [n, 48]
        return F.normalize(torch.cat([flat, torch.full((len(flat), 1), 0.1)], dim=1), dim=1)

    def encode_images(self, images):
        return self.encode_prepared(
            [self.prepare(image) for image in ([images] if not isinstance(images, list) else images)]
        )

    def encode_texts(self, texts):
        rows = [
            np.mean([WORDS[word] for word in text.split() if word in WORDS] or [(0.4, 0.5, 0.6)], axis=0)
            for text in texts
        ]
        return self.encode_prepared([torch.tensor(row, dtype=torch.float32).expand(4, 4, 3) for row in rows])


class Wide(Colours):
    """A stand-in with as many numbers as the pocket CLIP; it embeds nothing."""

    dim = 256


def noise(seed: int, size=(6, 5)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def ten_pictures(place: Path) -> Path:
    """A folder with ten pictures of noise, two of them in a folder below."""
    here = place / "pictures"
    (here / "below").mkdir(parents=True)
    for number in range(10):
        noise(number).save(here / ("below" if number >= 8 else "") / f"{number}.png")
    return here


def synthetic(n: int, clip, folder: Path, n_base: int = 50) -> ImageIndex:
    """An index of n vectors without pictures: copies of a few random ones, each moved a little."""
    from mmlesson.measure.speed_search import synthetic_index

    base = F.normalize(torch.randn(n_base, clip.dim, generator=torch.Generator().manual_seed(1)), dim=1)
    return synthetic_index(n, clip, folder, base)


def names(hits) -> list[str]:
    return [hit.path.name for hit in hits]


def contents(index: ImageIndex) -> dict:
    """All that an index says of each file, and its vector."""
    columns = ["id", "path", "size", "modified", "sha256", "caption"]
    rows = {row["path"]: row for row in index._table.search().select(columns).limit(None).to_arrow().to_pylist()}
    for row in rows.values():
        row["vector"] = index._vectors[index._place_of(row.pop("id"))].numpy()
    return rows


def assert_equal_indexes(one: ImageIndex, other: ImageIndex) -> None:
    mine, theirs = contents(one), contents(other)
    assert mine.keys() == theirs.keys() and len(one) == len(other) == len(mine)
    for path, row in mine.items():
        np.testing.assert_allclose(row.pop("vector"), theirs[path].pop("vector"), atol=1e-6)
        assert row == theirs[path]
