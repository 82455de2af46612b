"""The command `mmlesson index`: an index of a folder, a list or a table of pictures, by this machine or by a cluster.

`cli.py` gives what turns a gate into the type of an option, and calls `options`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mmlesson import gates
from mmlesson.words import escaped, shown

T = TypeVar("T")


def options(commands, refusing: Callable[[Callable[[str], T]], Callable[[str], T]], workers: Callable) -> None:
    """Add the command to the command line."""
    index = commands.add_parser(
        "index",
        help="index a collection of pictures, on this machine or on a cluster",
        description="Embed every picture of SOURCE and keep the index at TABLE, for ImageIndex.open. A build that was "
        "stopped goes on when it is called again. With --engine ray a Ray cluster does the work, and the index is the "
        "same. SOURCE and TABLE may be addresses (s3://…, gs://…), which all machines of the cluster can reach.",
    )
    index.add_argument(
        "source",
        type=refusing(place_to_read),
        metavar="SOURCE",
        help="a folder of pictures; or a list of paths (.txt), a table of paths or pictures (.parquet, .lance)",
    )
    index.add_argument(
        "--out", required=True, type=refusing(place_to_write), metavar="TABLE", help="where the index goes: a folder"
    )
    index.add_argument("--engine", choices=("local", "ray"), default="local", help="default: local")
    index.add_argument("--address", metavar="ADDRESS", help="of a Ray cluster: auto, ray://…; default: one is started")
    index.add_argument("--workers", type=workers, metavar="N", help="of the cluster; default: one for each core")
    index.add_argument("--model", metavar="NAME", help="the CLIP; default: MMLESSON_CLIP, or photo-clip")
    index.set_defaults(run=run_index)


def place_to_read(text: str) -> str | Path:
    """An address as it is, or a path."""
    return text if "://" in text else gates.input_path(text)


def place_to_write(text: str) -> str | Path:
    """An address as it is, or a folder that can be written to."""
    return text if "://" in text else gates.output_folder(text)


def run_index(options: argparse.Namespace) -> int:
    from mmlesson.clip import ENVIRONMENT, PHOTO, load_clip
    from mmlesson.search import ImageIndex

    if options.engine == "local" and (options.address is not None or options.workers is not None):
        raise ValueError("--address and --workers are for a cluster: add --engine ray.")
    clip = load_clip(options.model or os.environ.get(ENVIRONMENT) or PHOTO)
    index = ImageIndex.build(
        options.source,
        clip,
        options.out,
        engine=options.engine,
        address=options.address,
        workers=options.workers,
    )
    for name, reason in index.skipped[:20]:
        print(f"  {shown(name)}: {escaped(reason)}", file=sys.stderr)
    if len(index.skipped) > 20:
        print(f"  … and {len(index.skipped) - 20} more", file=sys.stderr)
    left_out = f", {len(index.skipped)} left out" if index.skipped else ""
    print(f"{shown(options.out)}: {len(index)} pictures of {clip.name}{left_out}")
    return 0
