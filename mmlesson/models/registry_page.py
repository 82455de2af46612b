"""What `mmlesson models` and `mmlesson download` print."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from pathlib import Path

from mmlesson.models import registry


def models(options: argparse.Namespace) -> int:
    """Print the models that are here and those that open_clip knows by name; 1 where no name holds the words."""
    columns = shutil.get_terminal_size((80, 24)).columns

    def say(text: str) -> None:
        print(textwrap.fill(text, columns, break_on_hyphens=False, break_long_words=False))

    print("On this machine:")
    here = [
        (one.name, _size(one.bytes), "" if one.dim is None else str(one.dim), one.licence or "not stated")
        for one in registry.list_here(options.folder)
    ]
    _table(("model", "size", "dim", "licence"), here, columns)
    print()
    words = "/" if options.all else options.words
    found = list(registry.list_models(words))
    if not found:
        say(f"open_clip knows no model whose name holds {words!r}: `mmlesson models --all` lists all names.")
        return 1
    print("By name, to download once:")
    rows = []
    for one in found:
        mark = "*" if one.name == registry.RECOMMENDED else ""
        count = "?" if one.parameters is None else f"{one.parameters / 1e6:.0f} M"
        size = "?" if one.parameters is None else _size(4 * one.parameters)
        tokens = "transformers" if one.needs_transformers else ""
        rows.append((one.name + mark, count, size, str(one.dim), str(one.side or "?"), tokens, one.repository))
    head = ("model", "parameters", "size", "dim", "pixels", "needs", "repository on the hub")
    widest = max(map(len, (row[0] for row in rows)))
    shown = 7 if columns >= 120 else 6 if widest <= 30 else 5 if widest <= 40 else 4  # columns that fit
    _table(head[:shown], [row[:shown] for row in rows], columns)
    print()
    if any(one.name == registry.RECOMMENDED for one in found):
        say(f"* For a laptop: {registry.RECOMMENDED}, the fewest parameters in the short list.")
    say(
        "size: about, at 4 bytes a parameter; the real file may be half of that. dim: numbers in the features. "
        "pixels: side of the picture that the model sees. needs: a package to install first."
    )
    say(
        "The installed open_clip brings no ImageNet figures and no licences, so none stand here. The model's card "
        "names its licence; the download keeps the card. Read it before you give the model to a class."
    )
    print()
    print("To have one without a network later:")
    print(f"  mmlesson download {registry.RECOMMENDED} --to clip")
    print('  then in Python: load_clip("local-dir:clip")')
    if not options.all and not options.words:
        print(f"All {len(registry.names())} names: mmlesson models --all. Some: mmlesson models siglip2")
    return 0


def download(options: argparse.Namespace) -> int:
    """Fetch a model into a folder, and print how to use it."""
    folder, new = registry.download(options.name, options.to)
    print(f"{options.name} is {'now' if new else 'already'} in {folder}, whole and checked.")
    print(f'Use it, also without a network: load_clip("local-dir:{folder}")')
    print(f"Licence, as its card says: {registry.licence_of(Path(folder)) or 'not stated'}.")
    return 0


def _size(n: int) -> str:
    return f"{n / 1e9:.1f} GB" if n >= 0.95e9 else f"{n / 1e6:.0f} MB"


def _table(head: tuple, rows: list, columns: int) -> None:
    """Print a table; a first cell that would make it wider than the window stands on a line of its own."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    room = max(len(head[0]), columns - sum(widths[1:]) - 2 * len(widths))
    widths[0] = max((len(row[0]) for row in [head, *rows] if len(row[0]) <= room), default=0)
    for row in [head, *rows]:
        first, *others = row
        if len(first) > room:
            print(f"  {first}")
            first = ""
        cells = [
            cell.rjust(width) if title in ("parameters", "size", "dim", "pixels") else cell.ljust(width)
            for title, cell, width in zip(head, [first, *others], widths, strict=True)
        ]
        print(("  " + "  ".join(cells)).rstrip())
