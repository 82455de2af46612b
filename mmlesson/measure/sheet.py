"""A sheet of pictures for people to read: what does each show, for somebody who does not know what it should show?"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from PIL import Image

from mmlesson import gates
from mmlesson.measure.prompts import Judged
from mmlesson.pixels import image_grid, save_image

COLUMNS, SIDE = 6, 192  # of the sheet, and pixels along a picture's side on it


def write_sheet(judged: Judged, folder: Path) -> None:
    """Writes sheet.png, on which the pictures have numbers and no names, and key.csv with the names; says where.

    Raises AssetError where they cannot be written.
    """
    large = [picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for picture in judged.pictures]
    numbers = [str(number) for number in range(1, len(large) + 1)]
    save_image(image_grid(large, COLUMNS, numbers), folder / "sheet.png")
    key = io.StringIO()
    csv.writer(key).writerows([("number", "prompt: what the judge says"), *zip(numbers, judged.captions, strict=True)])
    gates.write_atomically(folder / "key.csv", key.getvalue().encode())
    print(f"{folder / 'sheet.png'} shows the pictures without their names. Those stand in key.csv beside it.\n")
