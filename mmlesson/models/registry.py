"""The full-size CLIPs that open_clip knows by name: a list of them, and a download into a folder for later.

list_models("siglip2")                              # rows for `mmlesson models`; nothing asks the network
download("MobileCLIP2-S0/dfndr2b", Path("clip"))    # then load_clip("local-dir:clip") works without a network

Parameters are counted on torch's meta device, which holds shapes and no numbers. The installed open_clip brings no
table of ImageNet figures and no licences, so none are given here.
"""

from __future__ import annotations

import difflib
import errno
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmlesson import gates
from mmlesson.gates import AssetError
from mmlesson.models import assets, clips, hub, reading
from mmlesson.models.clip_folders import CONFIG, SAFE_WEIGHTS

RECORD, CARD = "download.json", "README.md"
RECOMMENDED = "MobileCLIP2-S0/dfndr2b"  # the fewest parameters of the families below
LAPTOP = ("MobileCLIP2-", "ViT-B-32-SigLIP2-", "ViT-B-16-SigLIP2", "ViT-B-32/openai", "ViT-B-32/laion2b_s34b")
MOST_PARAMETERS = 500 * 10**6  # of a model that the short list shows
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")  # what transformers reads first
WAYS_OUT = (
    "connect this machine to the internet and run the command again",
    "run it on another machine and bring the folder here on a stick",
)


@dataclass(frozen=True)
class Published:
    """A CLIP that open_clip knows by name."""

    name: str  # "architecture/tag", as load_clip takes it
    repository: str  # where the hub keeps it
    parameters: int | None  # None where the text tower is described on the hub only
    dim: int  # of the features
    side: int | None  # pixels a side of the pictures that it sees; None where the configuration does not say
    tokens: str  # the repository of its tokenizer, which the package transformers reads; "" for open_clip's own

    @property
    def needs_transformers(self) -> bool:
        return bool(self.tokens)


@dataclass(frozen=True)
class Here:
    """A model on this machine."""

    name: str  # a name of the course, or "local-dir:…"
    bytes: int  # of all its files
    dim: int | None  # of the features; None where it is no CLIP
    licence: str  # "" where nothing says


# ------------------------------------------------------------------------------------------- the list


@functools.cache
def names() -> tuple[str, ...]:
    """All names "architecture/tag" of open_clip that have a repository on the hub, each once."""
    from mmlesson.models.libraries import open_clip

    # "…-quickgelu" repeats a model whose tag asks for QuickGELU anyway
    pairs = [pair for pair in open_clip.list_pretrained() if not pair[0].endswith("-quickgelu")]
    return tuple("/".join(pair) for pair in pairs if open_clip.get_pretrained_cfg(*pair).get("hf_hub"))


def published(name: str) -> Published:
    """What the installed open_clip says about a name. Raises ValueError, with the nearest names, for an unknown one."""
    from mmlesson.models.libraries import open_clip

    architecture, tag = _pair(name)
    config = open_clip.get_model_config(architecture)
    text, vision = config.get("text_cfg", {}), config.get("vision_cfg", {})
    return Published(
        f"{architecture}/{tag}",
        os.path.split(open_clip.get_pretrained_cfg(architecture, tag)["hf_hub"])[0],
        _parameters(architecture),
        config["embed_dim"],
        vision.get("image_size") if isinstance(vision.get("image_size"), int) else None,
        text.get("hf_tokenizer_name") or text.get("hf_model_name") or "",
    )


def list_models(words: str = "") -> Iterator[Published]:
    """The published CLIPs whose name holds `words`, in any case; for "" a short list that suits a laptop."""
    for name in names():
        if words.lower() not in name.lower() or (not words and not name.startswith(LAPTOP)):
            continue
        model = published(name)
        if words or (model.parameters is not None and model.parameters <= MOST_PARAMETERS):
            yield model


def _pair(name: str) -> tuple[str, str]:
    known = names()
    architecture, _, tag = name.rpartition("/")
    wanted = f"{architecture.replace('/', '-')}/{tag}".lower()  # ViT-B/32 is ViT-B-32
    for one in known:
        if one.lower() == wanted:
            return tuple(one.rsplit("/", 1))
    by_small = {one.lower(): one for one in known}
    near = [one for one in known if name and one.lower().startswith(name.lower())]
    near = near or [by_small[one] for one in difflib.get_close_matches(name.lower(), by_small, 3, 0.3)]
    raise ValueError(
        f"open_clip has no model named {name!r}. Near it: {', '.join(near[:3]) or 'nothing'}. "
        "`mmlesson models --all` lists all names."
    )


@functools.cache  # the tags of an architecture have the same
def _parameters(architecture: str) -> int | None:
    """The number of parameters of a model of open_clip, without memory for them."""
    import torch

    from mmlesson.models.libraries import open_clip

    config = open_clip.get_model_config(architecture)
    if config.get("text_cfg", {}).get("hf_model_name"):
        return None
    form = {key: value for key, value in config.items() if key not in ("custom_text", "multimodal_cfg")}
    kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
    if "multimodal_cfg" in config:
        kind, form = open_clip.CoCa, {**form, "multimodal_cfg": config["multimodal_cfg"]}
    with torch.device("meta"):
        return sum(one.numel() for one in kind(**form).parameters())


def list_here(folder: Path) -> Iterator[Here]:
    """The course's own models, then the open_clip folders in `folder` (itself, and one level below)."""
    sizes: dict[str, int] = {}
    licences: dict[str, str] = {}
    for path, entry in assets.manifest()["files"].items():
        parts = path.split("/")
        if parts[0] == "models" and len(parts) > 2:
            sizes[parts[1]] = sizes.get(parts[1], 0) + entry["bytes"]
            licences[parts[1]] = entry.get("licence", "")
    for name, size in sizes.items():
        yield Here(name, size, _dim(assets.data_dir() / "models" / name), licences[name])
    below = sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []
    for place in [folder, *below]:
        if (place / CONFIG).is_file():
            files = [path.stat().st_size for path in place.iterdir() if path.is_file()]
            yield Here(f"local-dir:{place}", sum(files), _dim(place), licence_of(place))


def _dim(folder: Path) -> int | None:
    try:
        return reading.read_object(folder / CONFIG)["model_cfg"]["embed_dim"]
    except (AssetError, KeyError, TypeError):
        return None


def licence_of(folder: Path) -> str:
    """The licence that the head of a model's card names, "" where it names none."""
    try:
        lines = (folder / CARD).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return ""
    if not lines or lines[0].strip() != "---":
        return ""
    found = {}
    for line in lines[1:]:
        if line.strip() == "---":
            break
        key, _, value = line.partition(":")
        found[key.strip()] = value.strip()
    licence = found.get("license", "")
    return found.get("license_name", licence) if licence == "other" else licence


# --------------------------------------------------------------------------------------- the download


def download(name: str, folder: Path) -> tuple[Path, bool]:
    """Fetch a published CLIP into `folder`; returns (folder, False where the whole model was there already).

    The files go to a hidden folder beside it first. `folder` appears when every file has the sum that the hub names and
    open_clip has loaded the model. Where the connection breaks, the hub's library tries again from there five times;
    after that, files that came whole are kept for the next run, and the others start again.
    Raises ValueError for an unknown name or a folder that holds something else, AssetError where it cannot be had.
    """
    import importlib.util

    model, folder = published(name), gates.output_folder(folder).absolute()
    if folder.exists() and any(folder.iterdir()):
        _check_same(model.name, folder)
        return folder, False
    if model.parameters is None:
        raise AssetError(
            f"The text tower of {model.name} is described in another repository, so that a folder would not work "
            f"without a network: choose another model, such as {RECOMMENDED}."
        )
    if model.needs_transformers and importlib.util.find_spec("transformers") is None:
        raise AssetError(f"{model.name} reads text with the package transformers: `pip install transformers` first.")
    if assets.is_offline():
        raise assets.offline_error(model.name, WAYS_OUT)
    part = folder.with_name(f".{folder.name}.{model.name.replace('/', '-')}.part")
    place = hashlib.sha256(os.fsencode(part)).hexdigest()[:16]
    with gates.lock(assets.cache_dir() / f"download-{place}", what=f"downloading to {folder}"):
        try:
            _fetch_all(model, part)
            _try(model.name, part)
        except (Unfinished, KeyboardInterrupt) as error:
            whole = [path.name for path in part.glob("*") if path.is_file()]
            if not whole:
                shutil.rmtree(part, ignore_errors=True)
            for half in part.rglob("*.incomplete"):  # the hub's library starts these again
                half.unlink(missing_ok=True)
            if isinstance(error, KeyboardInterrupt) and whole:
                raise KeyboardInterrupt(
                    f"{part} holds {' and '.join(whole)}; the same command keeps what came whole, and fetches the rest."
                ) from None
            raise
        except BaseException as error:
            shutil.rmtree(part, ignore_errors=True)
            if _is_full(error):
                raise AssetError(
                    f"The disk is full: {model.name} did not fit beside {folder}, and nothing of it is left there. "
                    "Free some space, or choose a folder on another disk."
                ) from error
            raise
        shutil.rmtree(part / ".cache", ignore_errors=True)  # the hub's notes about what it fetched
        if folder.exists():
            folder.rmdir()  # it is empty; Windows does not replace a folder
        os.replace(part, folder)
    return folder, True


def _try(name: str, part: Path) -> None:
    """Load the model from the folder, as load_clip will, and let it read a text."""
    import torch

    try:
        clips.from_folder(part, name, torch.device("cpu")).tokenizer(["a cat"])
    except Exception as error:  # transformers raises whatever reading a strange tokenizer raised
        why = f"{type(error).__name__}: {error}".replace(str(part), "the folder")
        raise AssetError(
            f"{name} came whole, but does not load with the packages installed here, and was deleted: "
            f"choose another model ({why[:300]})."
        ) from error


class Unfinished(AssetError):
    """The download was cut off; files that came whole are kept beside the folder for the next run."""


def _check_same(name: str, folder: Path) -> None:
    try:
        record = reading.read_object(folder / RECORD)
        same = record["name"] == name
        sums = record["sha256"].items()
    except (AssetError, KeyError, TypeError, AttributeError):
        same, sums = False, ()
    if not same:
        raise ValueError(f"{folder} holds something else than {name}: name a folder that is new or empty.")
    for file, digest in sums:
        if not (folder / file).is_file() or assets.sha256(folder / file) != digest:
            raise AssetError(f"{folder / file} is missing or damaged: delete {folder} and download {name} again.")


def _fetch_all(model: Published, part: Path) -> None:
    """All files of the model into `part`, each with its sum, and the record of them."""
    from mmlesson.models.libraries import open_clip

    architecture, tag = model.name.rsplit("/", 1)
    entry = open_clip.get_pretrained_cfg(architecture, tag)
    _, filename = os.path.split(entry["hf_hub"])
    candidates = ((str(Path(filename).with_suffix(".safetensors")),) if filename else ()) + SAFE_WEIGHTS
    found = next((file for file in candidates if _head(model.repository, file)), None)
    if found is None:
        raise AssetError(
            f"The hub's {model.repository} has none of {', '.join(candidates)}: the course loads no other kind of "
            "weights, because a pickle can run any code when it is opened."
        )
    if model.tokens and not _head(model.tokens, TOKENIZER[0]):
        raise AssetError(
            f"{model.name} reads text with the tokenizer of {model.tokens}, which has no {TOKENIZER[0]}: a folder "
            f"would not work without a network. Choose another model, such as {RECOMMENDED}."
        )
    sums = {}
    tokenizer = [(model.tokens, file) for file in TOKENIZER] if model.tokens else []
    for repository, file in [(model.repository, found), (model.repository, CARD), *tokenizer]:
        if file == found or _head(repository, file):
            _fetch(model.name, repository, file, part)
            sums[file] = assets.sha256(part / file)
    if found != SAFE_WEIGHTS[0]:  # the name that open_clip looks for first
        os.replace(part / found, part / SAFE_WEIGHTS[0])
        sums[SAFE_WEIGHTS[0]] = sums.pop(found)
    config = open_clip.get_model_config(architecture)
    if entry.get("quick_gelu"):
        config["quick_gelu"] = True
    preprocess = {key: entry[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=2) + "\n"
    gates.write_atomically(part / CONFIG, text.encode())
    sums[CONFIG] = assets.sha256(part / CONFIG)
    record = {"name": model.name, "repository": model.repository, "sha256": sums}
    gates.write_atomically(part / RECORD, (json.dumps(record, indent=2) + "\n").encode())


def _head(repository: str, file: str):
    """What the hub says about a file (size, sum); None where it has no such file."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    url = hf_hub_url(repository, file)
    try:
        return hub.answer_within(6, lambda: get_hf_file_metadata(url, timeout=4))
    except RepositoryNotFoundError as error:
        raise AssetError(f"The hub has no open repository {repository} any more: choose another model.") from error
    except LocalEntryNotFoundError as error:
        raise Unfinished(str(assets.offline_error(f"{file} of {repository}", WAYS_OUT))) from error
    except EntryNotFoundError:
        return None
    except Exception as error:  # no route, no name server, a proxy, a firewall: all end here
        raise Unfinished(str(assets.offline_error(f"{file} of {repository}", WAYS_OUT))) from error


def _fetch(name: str, repository: str, file: str, part: Path) -> None:
    from huggingface_hub import hf_hub_download

    about = _head(repository, file)
    part.mkdir(parents=True, exist_ok=True)
    if not (part / file).exists() and about.size is not None and about.size > shutil.disk_usage(part).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    try:
        hf_hub_download(repository, file, local_dir=part)
    except Exception as error:
        if _is_full(error):
            raise
        raise Unfinished(
            f"{file} of {name} was not downloaded whole ({str(error).splitlines()[0][:160] or type(error)}): "
            "run the same command again; it keeps the files that came whole."
        ) from error
    whole = about.etag and len(about.etag) == 64  # a large file's etag is its sha256
    if whole and assets.sha256(part / file) != about.etag:
        raise AssetError(
            f"{file} of {name} came with another sha256 than the hub names, and was deleted: "
            "run the command again; if it happens twice, something on the way changes files."
        )


def _is_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
