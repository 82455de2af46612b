"""Models loaded in a process that reaches no network: what comes of each, and how often the network was asked."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import forked

CODE = """
import json, socket, threading
asked = 0
def cut_off(*arguments, **options):
    global asked
    asked += 1
    {how}
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = cut_off
import huggingface_hub.errors, torch, mmlesson, mmlesson.models.assets
mmlesson.models.assets.is_offline = lambda: {offline}
for name in {names!r}:
    asked = 0
    try:
        said = {load}
    except Exception as error:
        said = type(error).__name__ + ": " + str(error)
    print(json.dumps([said, asked]), flush=True)
"""


def load_cut_off(
    load: str,
    *names: str,
    cache: Path,
    offline: bool = False,
    how: str = "raise OSError('cut off')",
    **environment: str,
) -> list[SimpleNamespace]:
    """Load each name: `said` (the error, or what `load` gives) and `asked` (how often the network was tried).

    load: an expression with `name` in it. how: what every attempt does. offline: whether the machine knows that it has
    no network. cache: the hub's.
    """
    code = CODE.format(load=load, names=names, offline=offline, how=how)
    printed = forked.run(code, {**os.environ, "HF_HUB_CACHE": str(cache), **environment})
    return [SimpleNamespace(said=said, asked=asked) for said, asked in map(json.loads, printed.splitlines())]


def write_hub_cache(cache: Path, repository: str, files: dict[str, Path]) -> None:
    """The hub's cache as it is after files (by their names in the repository) were downloaded."""
    folder, commit = cache / f"models--{repository.replace('/', '--')}", "0123456789" * 4
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    for name, file in files.items():
        link = folder / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
