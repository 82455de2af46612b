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
from mmlesson.gates import open_file, reason
from mmlesson.pixels import ImageError, as_list, list_images, load_image, thumbnail, walk_images
from mmlesson.words import shown
from mmlesson.world import Scene, Thing

MAX_BYTES = 500_000_000  # of one picture file
THUMBNAIL = 256  # pixels of the longer side of what is kept of a picture that is not a file
LONGEST_CAPTION = 10_000  # bytes that are read of a name.txt
LATEST = 2**63 - 1  # nanoseconds since 1970: the year 2262, which is as far as the table can count


@dataclass(frozen=True)
class Entry:
    """A picture of the source, before it is read."""

    path: str  # of a file: relative to the folder, with forward slashes; of an item of a list: "#3"
    size: int = 0  # bytes
    modified: int = 0  # nanoseconds since 1970
    caption: str | None = None
    item: Path | bytes | Image.Image | Scene | None = None  # bytes of a picture file that lay in a table, or elsewhere
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
        entries = folder_entries(root) if os.path.isdir(root) else []
        if not any(isinstance(entry.item, Path) for entry in entries):
            list_images(root)  # says what is wrong with a folder that does not exist, or that has no picture
        return entries
    items = as_list(source) if not isinstance(source, Scene) else [source]
    if not items:
        raise ImageError("the list holds no picture.")
    if captions is None:
        captions = [item.caption if isinstance(item, Scene) else None for item in items]
    if len(captions) != len(items):
        raise ValueError(f"{len(captions)} captions for {len(items)} pictures: give one each.")
    for caption in captions:
        if not (caption is None or isinstance(caption, str)) or any(
            "\ud800" <= sign <= "\udfff" for sign in caption or ""
        ):
            raise ValueError(f"a caption is a text, or None where there is none, not {caption!r:.60}.")
    return [
        Entry(f"#{number}", caption=caption, item=item)
        for number, (item, caption) in enumerate(zip(items, captions, strict=True))
    ]


def root_of(source) -> Path | None:
    """The folder that a source is; None for a list. Raises ImageError for a path that names nothing."""
    return absolute(source) if isinstance(source, (str, os.PathLike)) else None


def absolute(path: str | os.PathLike) -> Path:
    """The whole path of a folder, with ~ for the user's own. Raises ImageError where there is none."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(text, str) or not text or "\0" in text:
        raise ImageError(f"{text!r:.60} is no path of a folder: give the folder that holds the pictures.")
    try:
        return Path(os.path.expanduser(text)).absolute()
    except OSError as error:  # the current folder has been removed
        raise ImageError(
            f"{shown(text)} cannot be found: the current folder is gone, so give the whole path."
        ) from error


def folder_entries(root: Path) -> list[Entry]:
    """The picture files below a folder, by path, and an entry with a reason for each folder that cannot be read.

    Raises ImageError where the folder is gone, or cannot be read itself.
    """
    if not os.path.isdir(root):
        raise ImageError(
            f"{shown(root)}, the folder of the pictures, is gone: put it back, or build an index of another."
        )
    entries = []
    start = len(str(root)) + (not str(root).endswith(os.sep))

    for path in walk_images(root, lambda error: entries.append(unreadable_folder(root, start, error))):
        entries.append(file_entry(path, str(path)[start:].replace(os.sep, "/")))
    return sorted(entries, key=lambda entry: entry.path.split("/"))


def file_entry(path: Path, relative: str) -> Entry:
    """The entry of a picture file, whose path in the folder is `relative`."""
    try:
        relative.encode()
        stat = path.stat()
        caption = _caption_beside(path)
    except UnicodeEncodeError:
        name = relative.encode(errors="replace").decode()  # question marks in place of what is not text
        return Entry(name, item=path, error="its name is not valid Unicode: rename it.")
    except OSError:  # a link to nowhere, or a file that was deleted just now: reading it will say so
        return Entry(relative, item=path)
    return Entry(relative, stat.st_size, min(stat.st_mtime_ns, LATEST), caption, path)


def unreadable_folder(root: Path, start: int, error: OSError) -> Entry:
    """The entry, with its reason, of a folder that cannot be read. Raises ImageError where it is the root itself.

    start: where paths below the root begin.
    """
    name = (error.filename or str(root))[start:].replace(os.sep, "/").encode(errors="replace").decode()
    if not name:  # an update would drop every picture
        raise ImageError(
            f"{shown(root)}, the folder of the pictures, cannot be read ({reason(error)}): change its permissions."
        ) from error
    why = f"this folder cannot be read ({reason(error)}), nor what is in it: change its permissions or its name."
    return Entry(f"{name}/", error=why)


def stays_inside(path: str) -> bool:
    """Whether a path of the table, relative to the source, leads to a file below it.

    A path in an index that this package made always does. One that someone else made may name any file.
    """
    windows = os.name == "nt" and ("\\" in path or ":" in path)
    return not (path.startswith("/") or ".." in path.split("/") or "\0" in path or windows)


def _caption_beside(path: Path) -> str | None:
    try:
        with open_file(path.with_suffix(".txt")) as file:
            return file.read(LONGEST_CAPTION).decode(errors="replace").strip() or None
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
            was = entry.item.stat()
            with open_file(entry.item) as file:
                read.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            picture = entry.item
        elif isinstance(entry.item, bytes):
            read.sha256 = hashlib.sha256(entry.item).hexdigest()
            read.stored = _thumbnail_of(load_image(entry.item, at_least=THUMBNAIL))
            picture = entry.item
        elif isinstance(entry.item, Scene):
            read.stored = scene_to_json(entry.item)
            read.sha256 = hashlib.sha256(read.stored).hexdigest()
            picture = entry.item.render(clip.image_size) if read.sha256 not in embedded else None
        else:
            picture = load_image(entry.item)
            read.sha256 = pixel_hash(picture)
            read.stored = _thumbnail_of(picture)
        if read.sha256 not in embedded:
            read.prepared = clip.prepare(picture)
        if isinstance(entry.item, Path) and _stamp(entry.item.stat()) != _stamp(was):
            raise ImageError("it was changed while it was read: search again when it is complete.")
    except ImageError as error:
        read.error = str(error)
    except OSError as error:  # from the hash
        read.error = f"it cannot be read ({(error.strerror or str(error)).lower()})."
    except (MemoryError, RuntimeError) as error:  # one picture may not stop the work on all others
        read.error = f"it cannot be prepared ({error})."
    return read


def _thumbnail_of(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    thumbnail(picture, THUMBNAIL).save(buffer, "WEBP", quality=90)
    return buffer.getvalue()


def _stamp(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


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
    """The picture that `Read.stored` keeps: a scene is drawn anew, a picture is its thumbnail. Raises ImageError."""
    if stored[:1] != b"{":
        return load_image(stored)
    try:
        return scene_from_json(stored).render(THUMBNAIL)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ImageError(f"what the index keeps of this scene is damaged ({error}): build the index again.") from error
