"""CLIP: one space for pictures and texts, in which what belongs together points in the same direction.

A CLIP is two networks, an image tower and a text tower, that were trained on pairs of a picture and its
caption with `contrastive_loss`. Each turns its input into a vector of the same length, of norm 1; the cosine
of two such vectors says how well a picture and a text match.

    clip = load_clip()                                      # the pocket model: no network, no GPU
    clip.classify("cat.jpg", ["a picture of a cat", "a picture of a dog"])

The networks, the tokenizers and the names of weights are those of open_clip (Ilharco et al. 2021,
github.com/mlfoundations/open_clip); the method is Radford et al. 2021, "Learning Transferable Visual Models
From Natural Language Supervision", arxiv.org/abs/2103.00020.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import importlib.util
import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F

from mmlesson import runtime
from mmlesson.gates import AssetError
from mmlesson.models import assets, hub
from mmlesson.pixels import ImageError, is_one, load_image

POCKET, JUDGE, GUIDE = "pocket-clip", "judge-clip", "pocket-guide"
GUIDE_WEIGHTS = "visual.safetensors"  # of the guide: its image towers; the text tower is the pocket CLIP's
SECOND_TOWER = "cs3darknet_s"  # of the guide, by timm's name; the first has the form of the pocket CLIP's
ENVIRONMENT = "MMLESSON_CLIP"
# JPEG files are decoded at the smallest of 1, 1/2, 1/4, 1/8 that leaves this many times the model's image size.
# Measured on photos and scenes: at 3 the lowest cosine with exact preprocessing is 0.9996, at 2 it is 0.998.
JPEG_MARGIN = 3


def load_clip(name: str | None = None, device: str | torch.device | None = None) -> CLIP:
    """A trained CLIP by its name; None is the one that MMLESSON_CLIP names, or else the pocket model.

    "pocket-clip"                  the course's own, from data/, its sha256 checked; no network
    "ViT-B-32/laion2b_s34b_b79k"   an open_clip architecture and a tag of weights for it
    "hf-hub:organisation/model"    an open_clip model on the Hugging Face hub
    "local-dir:path/to/folder"     a folder with open_clip_config.json and open_clip_model.safetensors

    Files from the hub are downloaded once; while they are in its cache the network is not asked again.
    Weights are safetensors, never unpickled, in float32, frozen (`requires_grad` False), in `eval` mode, on
    `device` (None: the best one here). A model without its trained weights is never returned.
    Raises ValueError for an unknown name, AssetError (a RuntimeError) where files are missing, damaged or
    cannot be fetched; each says what to do.
    """
    from_environment = not name and os.environ.get(ENVIRONMENT)
    name = name or from_environment or POCKET
    if not isinstance(name, str):
        raise ValueError(f"the name of a CLIP is a string, such as {POCKET!r}, not {name!r}.")
    device = runtime.device(device)
    try:
        if name == POCKET:
            return _from_folder(assets.model_dir(POCKET), name, device)
        if name.startswith("local-dir:"):
            return _from_folder(Path(name.removeprefix("local-dir:")).expanduser(), name, device)
        if name.startswith("hf-hub:"):
            return _from_hub(name.removeprefix("hf-hub:"), name, device)
        return _from_tag(name, device)
    except (AssetError, ValueError) as error:
        if from_environment:
            raise type(error)(f"{error} (The environment variable {ENVIRONMENT} named it.)") from error
        raise


def load_judge(device: str | torch.device | None = None) -> CLIP:
    """The judge: a second pocket CLIP, of another architecture and seed, that rates generated pictures.

    It takes no part in making them: a network is pleased by quirks of its own, and only another one can say whether a
    picture shows anything. Raises AssetError where its files are missing or damaged.
    """
    return _from_folder(assets.model_dir(JUDGE), JUDGE, runtime.device(device))


def load_guide(device: str | torch.device | None = None) -> CLIP:
    """The CLIP that leads VQGAN+CLIP: the one that MMLESSON_CLIP names, or else the pocket guide.

    The pocket guide is the pocket CLIP with other image towers, two that were trained on half-finished pictures
    (`train/guide.py`); texts mean the same to both. Raises as `load_clip` does.
    """
    if os.environ.get(ENVIRONMENT):
        return load_clip(device=device)
    return guide_from(assets.model_dir(GUIDE), device)


def guide_from(folder: Path, device: str | torch.device | None = None) -> CLIP:
    """The pocket CLIP with the image towers in `folder`. Raises AssetError where they are missing, damaged or of another form."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    clip = load_clip(POCKET, device)
    path, towers = folder / GUIDE_WEIGHTS, guide_towers(clip)
    try:
        towers.load_state_dict({name: value.float() for name, value in load_file(path).items()})  # strict: all of them
    except (OSError, RuntimeError, SafetensorError) as error:
        raise AssetError(
            f"{path}, with the image towers of the guide, is missing or damaged ({str(error).splitlines()[0][:160]})."
        ) from error
    if clip.device.type == "cpu":
        towers.to(memory_format=torch.channels_last)
    clip.model.visual, clip.name = towers.eval().requires_grad_(False), GUIDE
    return clip


class Towers(torch.nn.Module):
    """Several image towers as one: the mean of their features, each brought to unit length. What pleases one of them alone counts half.

    An ensemble of networks that were trained apart is harder to deceive than any of them (Tramèr et al. 2018, "Ensemble Adversarial Training").
    """

    def __init__(self, towers: Iterable[torch.nn.Module], image_size: int):
        super().__init__()
        self.towers, self.image_size = torch.nn.ModuleList(towers), image_size

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalised pixels `[n, 3, image_size, image_size]` → `[n, dim]`."""
        return torch.stack([torch.nn.functional.normalize(tower(inputs), dim=-1) for tower in self.towers]).mean(0)


def guide_towers(clip: CLIP, seed: int = 0) -> Towers:
    """Image towers of a guide to be: that of `clip` itself, and a fresh one of another architecture, whose weights depend on the seed alone.

    The second is timm's small CSPDarknet (Wang et al. 2020, "CSPNet"): two thirds of the first one's cost.
    """
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        second = timm.create_model(SECOND_TOWER, num_classes=clip.dim)
    return Towers([clip.model.visual, second.to(clip.device)], clip.image_size)


class CLIP:
    """A trained CLIP with everything a lesson asks of it. `load_clip` makes one.

    model           the open_clip module: `encode_image(pixels)`, `encode_text(tokens)`, `logit_scale`
    preprocess      the weights' own: PIL picture → float32 `[3, image_size, image_size]`, normalised
    tokenizer       the weights' own: texts → int64 `[n, context_length]`
    name            what `load_clip` was asked for
    vocabulary      the words that the training captions held, lower case; None where that is not known
    """

    def __init__(
        self,
        model: torch.nn.Module,
        preprocess: Callable,
        tokenizer: Callable,
        name: str,
        vocabulary: Iterable[str] | None = None,
    ):
        self.model, self.preprocess, self.tokenizer, self.name = model, preprocess, tokenizer, name
        self.vocabulary = (
            None if vocabulary is None else frozenset(part for word in vocabulary for part in _words(word))
        )
        self.device = next(model.parameters()).device
        self.context_length: int = tokenizer.context_length
        size = model.visual.image_size
        self.image_size: int = (
            size if isinstance(size, int) else size[0]
        )  # pixels a side; all of open_clip's are square
        self._warned: set[str] = set()
        self._label_features: dict[tuple, torch.Tensor] = {}
        self.dim: int = self.encode_texts([""]).shape[1]  # the length of an embedding

    def __repr__(self) -> str:
        return f"CLIP({self.name!r}, dim={self.dim}, image_size={self.image_size}, device={self.device.type!r})"

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied with before the softmax: a learned number, about 10 to 100."""
        return float(self.model.logit_scale.detach().exp())

    @property
    def temperature(self) -> float:
        """1 / logit_scale: what cosines are divided by. The smaller, the surer the softmax sounds."""
        return 1 / self.logit_scale

    def fingerprint(self) -> str:
        """32 hexadecimal digits that differ between CLIPs whose embeddings differ: from a sample of every weight.

        What keeps embeddings (an index) keeps this beside them, so that those of two models are never compared.
        """
        digest = hashlib.sha256(f"{self.image_size} {self.dim} {self.preprocess}".encode())
        for name, weight in sorted(self.model.state_dict().items()):
            sample = weight.flatten()[:: max(1, weight.numel() // 256)].float().cpu()
            digest.update(f"{name} {list(weight.shape)}".encode() + sample.numpy().tobytes())
        return digest.hexdigest()[:32]

    # ---------------------------------------------------------------------------------- embeddings

    def encode_images(self, images, batch_size: int = 64) -> torch.Tensor:
        """Embeddings of pictures: float32 `[n, dim]` of unit length, detached, on the CPU.

        `images` is one picture or any number of them (also a generator): paths, PIL pictures, arrays or
        bytes, in any mix, as `images.load_image` takes them. Worker threads read and preprocess them, a batch
        at a time; a bar shows when it takes more than two seconds.
        PIL pictures in mode RGB and L give what open_clip's own preprocessing gives; JPEG *files* are decoded
        at a reduced scale where they are much larger than the model's image size (cosine ≥ 0.999 to exact).
        Raises ImageError, naming the picture, where one cannot be read.
        """
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size is a number of pictures, at least 1, not {batch_size!r}.")
        sources = [images] if is_one(images) else images
        total = len(sources) if hasattr(sources, "__len__") else None
        ready = self._preprocessed(sources, batch_size)
        if total != 1:
            ready = runtime.progress(ready, total, "encoding", "picture")
        features = [torch.zeros(0, self.dim)]
        while batch := list(islice(ready, batch_size)):
            features.append(self.encode_prepared(batch))
        return torch.cat(features)

    def prepare(self, image) -> torch.Tensor:
        """One picture, read and preprocessed as `encode_images` does it: float32 `[3, image_size, image_size]`, normalised.

        For work that goes on where one picture of many cannot be read; threads may call it. Raises ImageError.
        """
        return self.preprocess(load_image(image, at_least=JPEG_MARGIN * self.image_size))

    def encode_prepared(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        """Embeddings of a batch that `prepare` made: float32 `[n, dim]` of unit length, detached, on the CPU."""
        with torch.no_grad():
            inputs = torch.stack(list(prepared)).to(self.device)  # [n, 3, image_size, image_size]
            return self.model.encode_image(inputs, normalize=True).float().cpu()  # [n, dim]

    def _preprocessed(self, sources: Iterable, batch_size: int) -> Iterator[torch.Tensor]:
        """Normalised pixels `[3, image_size, image_size]`, in order, read by threads, at most a batch ahead."""

        def read(number: int, source) -> torch.Tensor:
            try:
                return self.prepare(source)
            except ImageError as error:
                if isinstance(source, (str, os.PathLike)):
                    raise  # the message has the path
                raise ImageError(f"images[{number}]: {error}") from error

        if isinstance(sources, list) and len(sources) == 1:
            yield read(0, sources[0])  # starting threads takes longer
            return
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        with ThreadPoolExecutor(min(threads, 16)) as pool:
            jobs = (pool.submit(read, number, source) for number, source in enumerate(sources))
            under_way = deque(islice(jobs, batch_size))
            try:
                while under_way:
                    yield under_way.popleft().result()
                    if self.device.type != "cpu":
                        under_way.extend(islice(jobs, 1))  # read the next batch while the GPU is busy with this one
                    elif not under_way:
                        under_way.extend(islice(jobs, batch_size))  # the model was busy with every core
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def encode_texts(self, texts: str | Iterable[str], batch_size: int = 256) -> torch.Tensor:
        """Embeddings of texts: float32 `[n, dim]` of unit length, detached, on the CPU; one text is `[1, dim]`.

        Warns where a text is too long for the model, or holds words that its training never held.
        Raises ValueError for what is not a text.
        """
        tokens = self.tokenize(texts)
        if not len(tokens):
            return torch.zeros(0, self.dim)
        with torch.no_grad():
            features = [
                self.model.encode_text(part.to(self.device), normalize=True) for part in tokens.split(batch_size)
            ]
        return torch.cat(features).float().cpu()

    def encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embeddings of pixels: `[n, dim]` of unit length, on the model's device, with gradients.

        `pixels` is float `[n, 3, height, width]` in 0…1. Another size than the model's is resized (with
        antialiasing) and cropped as the weights' preprocessing does it; normalising happens in here too.
        Equal to `encode_images` for pictures of the model's size. Raises ValueError for another shape or range.
        """
        shape = list(getattr(pixels, "shape", []))
        if len(shape) != 4 or shape[1] != 3 or not pixels.is_floating_point():
            raise ValueError(
                f"pixels are floats in 0…1 of shape [n, 3, height, width], not {shape or type(pixels).__name__}."
            )
        if shape[0] and pixels.detach().amax() > 4:  # a generator may overshoot 1 a little; 0…255 is a mistake
            raise ValueError("pixels lie in 0…1; these look like 0…255: divide by 255.")
        inputs = self.preprocess(pixels.to(self.device, torch.float32))  # [n, 3, image_size, image_size]
        return self.model.encode_image(inputs, normalize=True)  # [n, dim]

    def each_tower(self) -> list[CLIP]:
        """A CLIP for every image tower of this one, the same in all else: the guide has two, any other CLIP is its own only one."""
        if not isinstance(self.model.visual, Towers):
            return [self]
        return [self._seeing_with(tower) for tower in self.model.visual.towers]

    def folded(self) -> CLIP:
        """The same CLIP, its image tower made for speed: the same numbers but for rounding.

        Batch norms are folded into the convolutions before them, and attention pooling computes the one answer that it gives. For
        open_clip's ResNet and the guide's towers; any other CLIP is returned as it is. Not for training: nothing is left to normalise with.
        """
        from open_clip.modified_resnet import ModifiedResNet
        from timm.models.cspnet import CspNet

        if not isinstance(self.model.visual, (ModifiedResNet, CspNet, Towers)) or self.model.visual.training:
            return self
        return self._seeing_with(_fold(copy.deepcopy(self.model.visual)))

    def _seeing_with(self, tower: torch.nn.Module) -> CLIP:
        """A copy that shares everything but its image tower."""
        other = copy.copy(self)
        other.model = copy.copy(self.model)
        other.model._modules = {**self.model._modules, "visual": tower}
        return other

    # ------------------------------------------------------------------------------------ matching

    def similarity(self, images, texts: str | Iterable[str]) -> torch.Tensor:
        """How well each picture matches each text: cosines, float32 `[n_images, n_texts]` in -1…1."""
        return self.encode_images(images) @ self.encode_texts(texts).T

    def classify(
        self,
        images,
        labels: Sequence[str],
        templates: str | Sequence[str] | None = None,
        temperature: float | None = None,
    ) -> torch.Tensor:
        """Zero-shot classification: float32 `[n_images, n_labels]`, each row sums to 1.

        softmax(cosines / temperature) over the labels; `temperature` None is the one the model learned.
        Without `templates` the labels themselves are the prompts ("a picture of a cat"). With templates, texts
        that hold `{}` ("a picture of a {}"), a label's embedding is the mean over its filled-in templates, again
        of unit length (Radford et al. 2021, section 3.1.4). Label embeddings are kept for the next call.
        The labels share the whole probability among them: none of them can be right and one still wins.
        Raises ValueError for no labels, a template without `{}`, or a temperature that is not above 0.
        """
        if temperature is None:
            temperature = self.temperature
        if not temperature > 0:
            raise ValueError(f"a temperature is a number above 0, not {temperature!r}.")
        label_features = self._encode_labels(labels, templates)
        return (self.encode_images(images) @ label_features.T / temperature).softmax(dim=-1)

    def _encode_labels(self, labels: Sequence[str], templates: str | Sequence[str] | None) -> torch.Tensor:
        """`[n_labels, dim]`, unit length."""
        if isinstance(labels, str):
            raise ValueError(f"labels is a list of texts, such as [{labels!r}, 'something else'], not one text.")
        labels = _checked_texts(labels, "a label")
        templates = ["{}"] if templates is None else _checked_texts(templates, "a template")
        if not labels:
            raise ValueError("classify needs at least one label, such as ['a cat', 'a dog'].")
        if not templates:
            raise ValueError("templates is empty: leave it out, or give at least one, such as 'a picture of a {}'.")
        for template in templates:
            if "{}" not in template:
                raise ValueError(
                    f"the template {template!r} has no {{}}, which stands for the label, as in 'a picture of a {{}}'."
                )
        # the versions count every in-place change, so that nothing old is used after a step of an optimiser
        key = (tuple(labels), tuple(templates), sum(weight._version for weight in self.model.parameters()))
        if key not in self._label_features:
            prompts = [template.replace("{}", label) for label in labels for template in templates]
            features = self.encode_texts(prompts).unflatten(
                0, (len(labels), len(templates))
            )  # [labels, templates, dim]
            if len(self._label_features) >= 16:
                self._label_features.clear()
            self._label_features[key] = F.normalize(features.mean(dim=1), dim=-1)  # [labels, dim]
        return self._label_features[key]

    # --------------------------------------------------------------------------------------- words

    def tokenize(self, texts: str | Iterable[str]) -> torch.Tensor:
        """Texts → tokens, int64 `[n, context_length]`, padded at the end; the same warnings and errors as `encode_texts`."""
        texts = _checked_texts(texts, "a text")
        if not texts:
            return torch.zeros(0, self.context_length, dtype=torch.int64)
        self._warn_of_unknown_words(texts)
        tokens = self.tokenizer(texts)
        for text, row in zip(texts, tokens, strict=True):
            if row[-1] != 0 and hasattr(self.tokenizer, "encode"):  # full: as long as it may be, or cut off
                length = len(self.tokenizer.encode(text)) + 2  # a start and an end
                if length > self.context_length:
                    start = text if len(text) <= 40 else text[:40] + "…"
                    runtime.warn(
                        f"{self.name} reads {self.context_length} tokens, and {start!r} has {length}: its end is left out."
                    )
        return tokens

    def tokens(self, text: str) -> list[str]:
        """The pieces that the tokenizer cuts a text into, start and end among them: frequent words whole, rare ones in parts.

        Byte-pair encoding (Sennrich et al. 2016, arxiv.org/abs/1508.07909): `</w>` closes a word, so a word of several
        pieces has it on the last one only. Not cut to the context length.
        """
        (text,) = _checked_texts([text], "a text")
        tokenizer = self.tokenizer
        if not hasattr(tokenizer, "byte_decoder"):  # a Hugging Face tokenizer
            return tokenizer.tokenizer.convert_ids_to_tokens(tokenizer.tokenizer(text).input_ids)
        pieces = []
        for token in [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]:
            piece = tokenizer.decoder[token]
            # a letter outside ASCII is several bytes, each with a printable stand-in
            word = piece.removesuffix("</w>")
            readable = bytes(tokenizer.byte_decoder[letter] for letter in word).decode("utf-8", errors="replace")
            pieces.append(readable + piece[len(word) :])
        return pieces

    def unknown_words(self, texts: str | Iterable[str]) -> list[str]:
        """The words of the texts, in order, each once, that no caption of the training held; [] where that is not known."""
        if self.vocabulary is None:
            return []
        words = (word for text in _checked_texts(texts, "a text") for word in _words(text))
        return [word for word in dict.fromkeys(words) if word not in self.vocabulary]

    def _warn_of_unknown_words(self, texts: list[str]) -> None:
        new = [word for word in self.unknown_words(texts) if word not in self._warned]
        if new:
            self._warned.update(new)
            named = ", ".join(map(repr, new[:8])) + (f" and {len(new) - 8} more" if len(new) > 8 else "")
            what = "the word" if len(new) == 1 else "the words"
            runtime.warn(f"{self.name} never met {what} {named} in its training: what it makes of them is a guess.")


def contrastive_loss(
    image_features: torch.Tensor, text_features: torch.Tensor, logit_scale: float | torch.Tensor
) -> torch.Tensor:
    """The loss that trains a CLIP: a scalar, 0 where every picture is sure of its caption and the reverse.

    `image_features` and `text_features` are `[n, dim]` of unit length, row i of one belonging to row i of the
    other; `logit_scale` is 1 / temperature. Their cosines make an n × n table, its diagonal the true pairs.
    Each row is a question with n answers, which caption belongs to this picture, and its cross-entropy
    is small where the diagonal entry is the largest by far; each column asks which picture belongs to this
    caption. The loss is the mean of both: it pulls true pairs together and pushes all others apart. Blind
    guessing costs log(n). Symmetric cross-entropy as in Radford et al. 2021, figure 3; equal to open_clip's
    `ClipLoss`. Raises ValueError where the two are not `[n, dim]` of one shape.
    """
    if image_features.ndim != 2 or image_features.shape != text_features.shape:
        raise ValueError(
            f"features are two [n, dim] of one shape, not {[*image_features.shape]} and {[*text_features.shape]}."
        )
    logits = logit_scale * image_features @ text_features.T  # [n, n]
    pair = torch.arange(len(logits), device=logits.device)  # [n]: the answer to question i is i
    return (F.cross_entropy(logits, pair) + F.cross_entropy(logits.T, pair)) / 2


def _fold(module: torch.nn.Module) -> torch.nn.Module:
    """Folds every batch norm into the convolution that is registered before it, in place: weights times a gain, an offset as bias."""
    from open_clip.modified_resnet import AttentionPool2d

    convolution = None
    for name, child in module.named_children():
        if isinstance(child, torch.nn.BatchNorm2d):
            setattr(module, convolution, torch.nn.utils.fuse_conv_bn_eval(getattr(module, convolution), child))
            activation = getattr(
                child, "act", torch.nn.Identity()
            )  # timm's batch norms hold the activation that follows
            if isinstance(activation, torch.nn.SiLU):
                activation.inplace = False  # its gradient needs what went in: in place, that is copied first
            setattr(module, name, activation)
        elif isinstance(child, torch.nn.Conv2d):
            convolution = name
        elif isinstance(child, AttentionPool2d):
            setattr(module, name, _PoolOnce(child))
        else:
            _fold(child)
    return module


class _PoolOnce(torch.nn.Module):
    """open_clip's `AttentionPool2d`, which asks for the mean and for every place and keeps the mean's answer: here only that is asked for."""

    def __init__(self, pool: torch.nn.Module):
        super().__init__()
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[n, width, h, w]` → `[n, dim]`."""
        pool, heads = self.pool, self.pool.num_heads
        places = x.flatten(2).transpose(1, 2)  # [n, h w, width]
        places = torch.cat([places.mean(1, keepdim=True), places], 1) + pool.positional_embedding  # [n, 1 + h w, width]
        queries, keys, values = pool.q_proj(places[:, :1]), pool.k_proj(places), pool.v_proj(places)
        split = (
            part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (queries, keys, values)
        )  # [n, heads, …, width / heads]
        return pool.c_proj(F.scaled_dot_product_attention(*split).flatten(1))


def _words(text: str) -> list[str]:
    """Lower-case words, split at everything that is not a letter or a digit; the s of "cat's" is not one."""
    return re.findall(r"[^\W_]+", re.sub(r"['’]s\b", "", text.lower()))


def _checked_texts(texts: str | Iterable[str], what: str) -> list[str]:
    texts = [texts] if isinstance(texts, str) else list(texts) if isinstance(texts, Iterable) else [texts]
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{what} is a string, not {text!r:.60}.")
    return texts


# --------------------------------------------------------------------------- where the weights come from

SAFE_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
WAYS_OUT = (
    "connect this machine to the internet once and load it again",
    "use the pocket model, load_clip()",
    "copy a model folder here and load it with load_clip('local-dir:path/to/folder')",
)


def _from_folder(folder: Path, name: str, device: torch.device) -> CLIP:
    """An open_clip model folder: open_clip_config.json, safetensors, and perhaps vocabulary.json."""
    if not folder.is_dir():
        raise AssetError(f"There is no folder {folder}: check the path after 'local-dir:'.")
    config_file = folder / "open_clip_config.json"
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))["model_cfg"]
        words = folder / "vocabulary.json"
        vocabulary = json.loads(words.read_text(encoding="utf-8"))["words"] if words.is_file() else None
    except FileNotFoundError:
        raise AssetError(f"{config_file} is missing: a model folder holds it beside {SAFE_WEIGHTS[0]}.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AssetError(
            f"{folder} is not an open_clip model folder, or damaged ({type(error).__name__}: {error})."
        ) from error
    # open_clip takes SAFE_WEIGHTS first, but a pickle before safetensors of any other name
    pickles = sorted(path.name for suffix in ("bin", "pth", "pt") for path in folder.glob(f"*.{suffix}"))
    if not any((folder / weights).is_file() for weights in SAFE_WEIGHTS) and (
        pickles or not any(folder.glob("*.safetensors"))
    ):
        found = (
            f"there is only {pickles[0]}, a pickle, which can run any code when it is opened"
            if pickles
            else "there are no weights"
        )
        raise AssetError(
            f"{folder / SAFE_WEIGHTS[0]} is missing ({found}): save the weights as safetensors under that name."
        )
    return _build(f"local-dir:{folder}", config, name, device, str(folder), vocabulary)


def _from_hub(repository: str, name: str, device: torch.device) -> CLIP:
    """A repository on the hub that is an open_clip model folder, both files of the same commit."""
    weights = hub.hub_file(repository, SAFE_WEIGHTS, name, WAYS_OUT)
    hub.hub_file(repository, ("open_clip_config.json",), name, WAYS_OUT, revision=weights.parent.name)
    return _from_folder(weights.parent, name, device)


def _from_tag(name: str, device: torch.device) -> CLIP:
    """One of open_clip's own "architecture/tag"; its list knows the repository and the preprocessing."""
    import open_clip

    architecture, _, tag = name.rpartition("/")
    published = open_clip.get_pretrained_cfg(architecture.replace("/", "-"), tag)  # ViT-B/32 is ViT-B-32
    if not published:
        known = ["/".join(pair) for pair in open_clip.list_pretrained()]
        near = [one for one in known if one.lower().startswith(name.lower())] or difflib.get_close_matches(
            name, known, 3, 0.3
        )
        if Path(name).is_dir():
            near = [f"local-dir:{name}"]
        raise ValueError(
            f"There is no CLIP named {name!r}. Near it: {', '.join(near[:3]) or 'nothing'}. "
            f"A name is {POCKET}, ARCHITECTURE/WEIGHTS of open_clip, hf-hub:… or local-dir:…."
        )
    architecture = architecture.replace("/", "-")
    repository, filename = os.path.split(published["hf_hub"])
    candidates = (str(Path(filename).with_suffix(".safetensors")),) if filename else ()
    weights = hub.hub_file(repository, candidates + SAFE_WEIGHTS, name, WAYS_OUT)
    preprocess = {key: published[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    config = open_clip.get_model_config(architecture)
    return _build(
        architecture, config, name, device, str(weights),
        pretrained=str(weights), force_preprocess_cfg=preprocess, force_quick_gelu=published.get("quick_gelu", False),
    )  # fmt: skip


def _build(source: str, config: dict, name: str, device: torch.device, where: str, vocabulary=None, **options) -> CLIP:
    """Let open_clip build the model and put the weights in."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from safetensors import SafetensorError

    text = config.get("text_cfg", {})
    if (text.get("hf_model_name") or text.get("hf_tokenizer_name")) and importlib.util.find_spec(
        "transformers"
    ) is None:
        raise AssetError(
            f"{name} reads text with the package transformers: install it with `pip install transformers`."
        )
    try:
        # open_clip only logs a warning and returns a random model without require_pretrained
        model = open_clip.create_model(source, device=device, require_pretrained=True, pretrained_text=False, **options)
    except (RuntimeError, ValueError, TypeError, KeyError, OSError, SafetensorError) as error:
        raise AssetError(
            f"The weights of {name} in {where} are damaged, or do not fit their configuration "
            f"({str(error).strip().splitlines()[0][:160]}): delete them and get them again."
        ) from error
    model.eval().requires_grad_(False)
    if device.type == "cpu":
        model.to(memory_format=torch.channels_last)  # the same numbers; convolutions run a fifth faster
    preprocess = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    return CLIP(model, preprocess, open_clip.get_tokenizer(source), name, vocabulary)
