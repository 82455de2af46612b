"""A folder of captioned pictures: what the photo CLIP learns from, and what it is measured on.

    folder/captions.tsv    the columns file, split and caption, with tabs between them, one caption a line
    folder/pictures/       the pictures

Several lines may be about one picture. A split is a word such as "train" or "test".
"""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from mmlesson import gates

CAPTIONS = "captions.tsv"
PICTURES = "pictures"
COLUMNS = ("file", "split", "caption")


@dataclass(frozen=True)
class Captioned:
    """A picture and everything that is said of it."""

    path: Path
    split: str  # "train", "test", …
    captions: tuple[str, ...]

    @property
    def held_out(self) -> bool:
        """One in sixteen, by a hash of the name: the thermometer of a training, which learns from the others."""
        return hashlib.sha256(self.path.name.encode()).digest()[0] % 16 == 0


def captioned_folder(path: str | Path) -> Path:
    """The gate of such a folder: its path, if its captions.tsv is there. Raises ValueError, with a sentence."""
    folder = Path(path)
    if not str(path) or not (folder / CAPTIONS).is_file():
        raise ValueError(f"{folder / CAPTIONS} is missing: a folder of captioned pictures has that file.")
    return folder


def read_captions(folder: str | Path, split: str) -> list[Captioned]:
    """The captioned pictures of one split, in the order of the file. A picture without a caption is left out.

    Raises ValueError, with a sentence, where captions.tsv is missing or of another form, a caption has no picture, or
    the split has no caption.
    """
    folder = captioned_folder(folder)
    table = folder / CAPTIONS
    found: dict[str, list[str]] = {}
    try:
        with io.TextIOWrapper(gates.open_file(table), encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if not set(COLUMNS) <= set(rows.fieldnames or ()):
                raise ValueError(
                    f"{table} has to begin with a line of three names and tabs between them: {', '.join(COLUMNS)}."
                )
            for row in rows:
                caption = (row["caption"] or "").strip()
                if row["split"] == split and caption:
                    found.setdefault(row["file"], []).append(caption)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table} is not a table of texts in UTF-8 ({error}).") from error
    if not found:
        raise ValueError(f"{table} has no caption of the split {split!r}.")
    pictures = [Captioned(folder / PICTURES / name, split, tuple(captions)) for name, captions in found.items()]
    for picture in pictures:
        if not picture.path.is_file():
            raise ValueError(f"{table} has a caption of {picture.path.name}, which is not in {picture.path.parent}.")
    return pictures
