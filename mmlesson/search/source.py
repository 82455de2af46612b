"""Where the pictures of an index come from: a folder, a list of pictures, or scenes of the pocket world."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image

from mmlesson.clip import CLIP
from mmlesson.models import assets
from mmlesson.pixels import ImageError, as_list, list_images, load_image, thumbnail, walk_images
from mmlesson.world import Scene, Thing

MAX_BYTES = 500_000_000  # of one picture file
THUMBNAIL = 256  # pixels of the longer side of what is kept of a picture that is not a file


@dataclass(frozen=True)
class Entry:
    """A picture of the source, before it is read."""

    path: str  # of a file: relative to the folder, with forward slashes; of an item of a list: "#3"
    size: int = 0  # bytes
    modified: int = 0  # nanoseconds since 1970
    caption: str | None = None
    item: Path | Image.Image | Scene | None = None
    error: str = ""  # why it cannot even be tried


@dataclass
class Read:
    """What reading an entry gave."""

    entry: Entry
    sha256: str = ""
    prepared: torch.Tensor | None = None  # [3, image_size, image_size]; None where its embedding is known
    stored: bytes | None = None  # what is kept to show a picture that is not a file
    error: str = ""


# ------------------------------------------------------------------------------------------- listing


def list_entries(source, captions: Sequence[str] | None) -> list[Entry]:
    """The pictures of a source: a folder, a list of pictures, or scenes. Raises ImageError where there is none."""
    root = root_of(source)
    if root is not None:
        if captions is not None:
            raise ValueError(
                "captions are for a list of pictures; for a folder write each into name.txt beside name.jpg."
            )
        entries = folder_entries(root) if root.is_dir() else []
        if not entries:
            list_images(root)  # says what is wrong with a folder that does not exist, or that has no picture
        return entries
    items = as_list(source) if not isinstance(source, Scene) else [source]
    if not items:
        raise ImageError("the list holds no picture.")
    if captions is None:
        captions = [item.caption if isinstance(item, Scene) else None for item in items]
    if len(captions) != len(items):
        raise ValueError(f"{len(captions)} captions for {len(items)} pictures: give one each.")
    return [
        Entry(f"#{number}", caption=caption, item=item)
        for number, (item, caption) in enumerate(zip(items, captions, strict=True))
    ]


def root_of(source) -> Path | None:
    """The folder that a source is; None for a list."""
    return Path(source).expanduser().absolute() if isinstance(source, (str, os.PathLike)) else None


def folder_entries(root: Path) -> list[Entry]:
    """The picture files below a folder, by path. Raises ImageError where the folder is gone."""
    if not root.is_dir():
        raise ImageError(f"{root}, the folder of the pictures, is gone: put it back, or build an index of another.")
    entries = []
    start = len(str(root)) + (not str(root).endswith(os.sep))
    for path in walk_images(root):
        relative = str(path)[start:].replace(os.sep, "/")
        try:
            relative.encode()
            stat = path.stat()
            caption = _caption_beside(path)
        except UnicodeEncodeError:
            shown = relative.encode(errors="replace").decode()  # question marks in place of what is not text
            entries.append(Entry(shown, item=path, error="its name is not valid Unicode: rename it."))
            continue
        except OSError:  # a link to nowhere, or a file that was deleted just now: reading it will say so
            entries.append(Entry(relative, item=path))
            continue
        entries.append(Entry(relative, stat.st_size, stat.st_mtime_ns, caption, path))
    return sorted(entries, key=lambda entry: entry.path.split("/"))


def _caption_beside(path: Path) -> str | None:
    try:
        return path.with_suffix(".txt").read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


# ------------------------------------------------------------------------------------------- reading


def read_entry(entry: Entry, clip: CLIP, embedded: Container[str]) -> Read:
    """Hash a picture and prepare it for the CLIP, or say why that cannot be done. Runs in a thread.

    embedded: the sha256 of pictures whose embedding is known; these are hashed only.
    """
    read = Read(entry)
    try:
        if entry.error:
            raise ImageError(entry.error)
        if isinstance(entry.item, Path):
            if entry.size > MAX_BYTES:
                raise ImageError(
                    f"it has {entry.size / 1e6:,.0f} MB, more than {MAX_BYTES // 10**6}: make it smaller first."
                )
            read.sha256 = assets.sha256(entry.item)
            picture = entry.item
        elif isinstance(entry.item, Scene):
            read.stored = scene_to_json(entry.item)
            read.sha256 = hashlib.sha256(read.stored).hexdigest()
            picture = entry.item.render(clip.image_size) if read.sha256 not in embedded else None
        else:
            picture = load_image(entry.item)
            read.sha256 = pixel_hash(picture)
            buffer = io.BytesIO()
            thumbnail(picture, THUMBNAIL).save(buffer, "WEBP", quality=90)
            read.stored = buffer.getvalue()
        if read.sha256 not in embedded:
            read.prepared = clip.prepare(picture)
    except ImageError as error:
        read.error = str(error)
    except OSError as error:  # from the hash
        read.error = f"it cannot be read ({(error.strerror or str(error)).lower()})."
    except (MemoryError, RuntimeError) as error:  # one picture may not stop the work on all others
        read.error = f"it cannot be prepared ({error})."
    return read


def is_unchanged(entry: Entry, row: dict | None) -> bool:
    """Whether a file is as the table says, by its size, time and caption; never true for an item of a list."""
    if row is None or entry.caption != row["caption"] or not isinstance(entry.item, Path):
        return False
    return (entry.size, entry.modified) == (row["size"], row["modified"])


def pixel_hash(picture: Image.Image) -> str:
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()


def scene_to_json(scene: Scene) -> bytes:
    return json.dumps(asdict(scene)).encode()


def scene_from_json(stored: bytes) -> Scene:
    values = json.loads(stored)
    return Scene(tuple(Thing(**thing) for thing in values["things"]), values["background"], values["relation"])


def picture_of(stored: bytes) -> Image.Image:
    """The picture that `Read.stored` keeps: a scene is drawn anew, a picture is its thumbnail."""
    return scene_from_json(stored).render(THUMBNAIL) if stored[:1] == b"{" else load_image(stored)
