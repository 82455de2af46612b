"""What people and programs do to model folders: each entry damages one folder. Nothing of it may be loaded.

`CLIPS` are for open_clip's folders, `OWN` for those of the course's own networks (config.json, model.safetensors). The
name says what is done; the function does it to a folder that was sound before.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Damage = Callable[[Path], None]
CLIP_CONFIG, CLIP_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
DEEP = "[" * 100_000 + "]" * 100_000
WORDS = "vocabulary.json"


class Bomb:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def pickle_as_weights(weights: Path) -> None:
    weights.write_bytes(pickle.dumps(Bomb(weights.parent / "it ran")))


def torch_pickle_as_weights(weights: Path) -> None:
    torch.save(Bomb(weights.parent / "it ran"), weights)


def header_of(size: int, written: bytes = b"{}") -> Callable[[Path], None]:
    def write(weights: Path) -> None:
        weights.write_bytes(struct.pack("<Q", size) + written)

    return write


def sparse_header(weights: Path) -> None:
    """A header of 2 GB that is really there, as a hole in the file."""
    with open(weights, "wb") as file:
        file.write(struct.pack("<Q", 2 * 2**30) + b'{"a": ')
        file.truncate(2 * 2**30 + 8)


def deep_header(weights: Path) -> None:
    weights.write_bytes(struct.pack("<Q", len(DEEP)) + DEEP.encode())


def lying_header(weights: Path) -> None:
    """Says that a tensor is larger than the file."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}).encode()
    weights.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)


def truncated(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-1000])


def emptied(weights: Path) -> None:
    weights.write_bytes(b"")


def noise(weights: Path) -> None:
    weights.write_bytes(os.urandom(5000))


def flipped_header(weights: Path) -> None:
    data = bytearray(weights.read_bytes())
    data[20] ^= 0xFF
    weights.write_bytes(data)


def no_tensors(weights: Path) -> None:
    save_file({}, weights)


def changed(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Weights in which `change` has changed the tensors, in place."""

    def write(weights: Path) -> None:
        tensors = {name: value.clone() for name, value in load_file(weights).items()}
        change(tensors)
        save_file(tensors, weights)

    return write


def _each(tensors: dict[str, torch.Tensor], to: Callable[[torch.Tensor], torch.Tensor]) -> None:
    for name in tensors:
        tensors[name] = to(tensors[name]).contiguous()


def _first(tensors: dict[str, torch.Tensor], to: Callable[[torch.Tensor], torch.Tensor]) -> None:
    name = max(tensors, key=lambda name: tensors[name].numel())
    tensors[name] = to(tensors[name]).contiguous()


def _one(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def put(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.float()
        tensor.flatten()[-1] = value
        return tensor

    return put


WEIGHTS: dict[str, Callable[[Path], None]] = {
    "a pickle under the name of safetensors": pickle_as_weights,
    "torch's pickle under the name of safetensors": torch_pickle_as_weights,
    "a header that says 2 GB": header_of(2 * 2**30),
    "a header that says 2**64 - 1": header_of(2**64 - 1),
    "a header of 2 GB that is there": sparse_header,
    "a header of 0 bytes": header_of(0, b""),
    "a header nested 100,000 deep": deep_header,
    "a header that says a tensor of 4 TB": lying_header,
    "weights cut off": truncated,
    "weights emptied": emptied,
    "weights of noise": noise,
    "a byte of the header flipped": flipped_header,
    "no tensors": no_tensors,
    "one tensor too few": changed(lambda tensors: tensors.pop(next(iter(tensors)))),
    "one tensor too many": changed(lambda tensors: tensors.update({"extra": torch.zeros(2)})),
    "a tensor of another shape": changed(lambda tensors: _first(tensors, lambda value: value[:1])),
    "a tensor without a shape": changed(lambda tensors: _first(tensors, lambda value: value.flatten()[0])),
    "a tensor of no numbers": changed(lambda tensors: _first(tensors, lambda value: value[:0])),
    "whole numbers in place of weights": changed(lambda tensors: _each(tensors, lambda value: value.to(torch.int64))),
    "complex weights": changed(lambda tensors: _each(tensors, lambda value: value.to(torch.complex64))),
    "yes and no in place of weights": changed(lambda tensors: _each(tensors, lambda value: value != 0)),
    "NaN in the last weight": changed(lambda tensors: _first(tensors, _one(float("nan")))),
    "infinity in the last weight": changed(lambda tensors: _first(tensors, _one(float("inf")))),
    "float64 too large for float32": changed(
        lambda tensors: _first(tensors, lambda value: torch.full_like(value, 1e300, dtype=torch.float64))
    ),
}


def _replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def _loop(path: Path) -> None:
    other = path.with_name("other")
    path.symlink_to(other)
    other.symlink_to(path)


# what can stand where a file should be
NO_FILES: dict[str, Callable[[Path], object]] = {
    "is a folder": Path.mkdir,
    "is a link in a circle": _loop,
    "is a link to nothing": lambda path: path.symlink_to("nowhere"),
    "is a pipe": os.mkfifo,
    "is an endless device": lambda path: path.symlink_to("/dev/zero"),
    "is missing": lambda path: None,
}

# what is no JSON object of the right form
TEXTS: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"{",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "nested 100,000 deep": DEEP.encode(),
    "objects nested 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a number of 100,000 digits": b'{"embed_dim": ' + b"9" * 100_000 + b"}",
    "not UTF-8": b'{"\xff\xfe": 1}',
    "UTF-16": '{"model_cfg": {}}'.encode("utf-16"),
    "zeros": b"\0" * 1000,
}


def _set(config: Path, path: str, value: object) -> None:
    """Put a value at "a.b.c" of a JSON file; `...` takes it out."""
    whole = json.loads(config.read_text())
    at = whole
    *above, last = path.split(".")
    for key in above:
        at = at[key]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    config.write_text(json.dumps(whole))


NOT_SIZES = (0, -1, 10**7, 10**12, 2**70, 2.5, "64", None, True, [], {}, [64], float("nan"), float("inf"))
MODEL = "model_cfg"
CLIP_VALUES: dict[str, tuple] = {
    f"{MODEL}.embed_dim": NOT_SIZES,
    f"{MODEL}.vision_cfg.image_size": (*NOT_SIZES, [64, 10**7], [64, 0], [[64]]),
    f"{MODEL}.vision_cfg.patch_size": NOT_SIZES,
    f"{MODEL}.vision_cfg.width": NOT_SIZES,
    f"{MODEL}.vision_cfg.layers": (*NOT_SIZES, 10**9, [1, 2], [1, 2, 2, -2], [1, 1, 1, 10**9]),
    f"{MODEL}.vision_cfg.head_width": (0, -1, 10**7, "64", None, []),
    f"{MODEL}.vision_cfg.mlp_ratio": (0, -1.0, 1e9, float("nan"), "4"),
    f"{MODEL}.vision_cfg.timm_model_name": (
        "no such model", "hf-hub:someone/evil", "local-dir:/tmp", "os.system", 7, ["resnet10t"], "resnet10t",
    ),
    f"{MODEL}.text_cfg.context_length": NOT_SIZES,
    f"{MODEL}.text_cfg.vocab_size": (*NOT_SIZES, 100),
    f"{MODEL}.text_cfg.width": NOT_SIZES,
    f"{MODEL}.text_cfg.heads": (*NOT_SIZES, 3),
    f"{MODEL}.text_cfg.layers": (*NOT_SIZES, 10**9),
    f"{MODEL}.text_cfg.hf_tokenizer_name": ("someone/evil", "bert-base-uncased", "../../etc", 7, {"a": 1}),
    f"{MODEL}.text_cfg.hf_model_name": ("someone/evil", "/tmp", 7, "os.system"),
    f"{MODEL}.text_cfg.tokenizer_kwargs": (
        {"bpe_path": "/etc/passwd"}, {"trust_remote_code": True}, [1], "clean", {"clean": "no such"}, {"clean": 7},
    ),
    f"{MODEL}.text_cfg.norm_kwargs": ({"eps": "x"}, {"device": "cuda:9"}, {"no_such": 1}),
    f"{MODEL}.text_cfg.no_such_field": (1,),
    f"{MODEL}.text_cfg": (..., None, [], "text", 7),
    f"{MODEL}.vision_cfg": (..., None, [], "vision", 7),
    f"{MODEL}.no_such_field": (1, "os.system"),
    f"{MODEL}.__class__": ("os.system",),
    f"{MODEL}.multimodal_cfg": ({"layers": 10**9}, {}),
    MODEL: (..., None, [], 7, "os.system", {}),
    "preprocess_cfg": (7, "x", [1], {"mean": [float("nan")] * 3}, {"std": [0, 0, 0]}, {"std": [1]}, {"mean": "abc"},
                       {"interpolation": "os.system"}, {"resize_mode": "none"}, {"mode": "L"},
                       {"mean": [[1], [2], [3]]}, {"std": [1e-300, 1e-300, 1e-300]},
                       {"fill_color": "x"}, {"std": [-1, 1, 1]}),
}  # fmt: skip


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _clips() -> dict[str, Damage]:
    found: dict[str, Damage] = {}
    for name, damage in WEIGHTS.items():
        found[name] = lambda folder, damage=damage: damage(folder / CLIP_WEIGHTS)
    for file in (CLIP_CONFIG, CLIP_WEIGHTS, WORDS):
        for name, make in NO_FILES.items():
            if file == WORDS and name in ("is missing", "is a link to nothing"):
                continue  # a folder need not have one
            found[f"{file} {name}"] = lambda folder, file=file, make=make: _replaced(folder / file, make)
    for file in (CLIP_CONFIG, WORDS):
        for name, text in TEXTS.items():
            found[f"{file}: {name}"] = lambda folder, file=file, text=text: (folder / file).write_bytes(text)
    for path, values in CLIP_VALUES.items():
        for value in values:
            found[f"{path} = {_short(value)}"] = lambda folder, path=path, value=value: _set(
                folder / CLIP_CONFIG, path, value
            )
    for words in (7, "abc", [7], [["a"]], {"a": 1}, [None], None, [[]]):
        found[f"words = {words!r}"] = lambda folder, words=words: (folder / WORDS).write_text(
            json.dumps({"words": words})
        )
    return found


CLIPS = _clips()

OWN_SIZES = (0, -1, 10**7, 10**12, 2**70, 2.5, "64", None, True, [], {}, [1, 2], float("nan"), float("inf"))
OWN_LISTS = ([], [1], [0, 0, 0], [-16, 16, 16], [10**9] * 3, [10**12] * 3, 7, None, "abc", ["a", "b", "c"], [[1]] * 3,
             [1.5, 2, 3], [True, True, True], [float("nan")] * 3, [16] * 4)  # fmt: skip
OWN_VALUES: dict[str, dict[str, tuple]] = {
    "VQGAN": {
        "image_size": (*OWN_SIZES, 12), "n_codes": OWN_SIZES, "dim": OWN_SIZES, "discriminator": (*OWN_SIZES, 7),
        "channels": OWN_LISTS, "encoder_blocks": [one for one in OWN_LISTS if one != [0, 0, 0]],
        "decoder_blocks": OWN_LISTS,
    },
    "prior": {
        "n_codes": OWN_SIZES, "dim": OWN_SIZES, "heads": (*OWN_SIZES, 5), "widths": OWN_LISTS, "blocks": OWN_LISTS,
    },
    "DALL-E": {
        "text_length": OWN_SIZES, "n_codes": OWN_SIZES, "grid": OWN_SIZES, "dim": OWN_SIZES, "layers": OWN_SIZES,
        "heads": (*OWN_SIZES, 5), "vqgan": (7, None, [], {}, True),
        "pieces": ([], [1], 7, None, "abc", ["a"], [-1, 2], [10**9] * 3, [1.5], list(range(50_000)), [[1]]),
    },
}  # fmt: skip


def own(kind: str) -> dict[str, Damage]:
    """The damages of the folder of a network of the course: "VQGAN", "prior" or "DALL-E"."""
    found: dict[str, Damage] = {}
    for name, damage in WEIGHTS.items():
        found[name] = lambda folder, damage=damage: damage(folder / "model.safetensors")
    for file in ("config.json", "model.safetensors"):
        for name, make in NO_FILES.items():
            found[f"{file} {name}"] = lambda folder, file=file, make=make: _replaced(folder / file, make)
    for name, text in TEXTS.items():
        found[f"config.json: {name}"] = lambda folder, text=text: (folder / "config.json").write_bytes(text)
    for field, values in OWN_VALUES[kind].items():
        for value in (..., *values):
            found[f"{field} = {_short(value)}"] = lambda folder, field=field, value=value: _set(
                folder / "config.json", field, value
            )
    return found
