"""CLIP: one space for pictures and texts. A picture and a text that belong together point in the same direction.

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
import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F

from mmlesson import gates, runtime, words
from mmlesson.decoding import bounded, middle
from mmlesson.gates import AssetError
from mmlesson.models import assets, clips, folders, reading
from mmlesson.models.familiar import UNFAMILIAR, Familiarity
from mmlesson.models.towers import GUIDE_WEIGHTS, Towers, can_fold, fold, guide_towers
from mmlesson.pixels import ImageError, is_one, load_image

POCKET = "pocket-clip"
PHOTO = "photo-clip"
JUDGE = "judge-clip"
GUIDE = "pocket-guide"
ENVIRONMENT = "MMLESSON_CLIP"
KNOWS = {POCKET: "drawings on plain backgrounds", PHOTO: "photographs"}  # what the course's own CLIPs learned from
# JPEG files are decoded at the smallest of 1, 1/2, 1/4, 1/8 that leaves this many times the model's image size.
# Measured on photos and scenes: at 3 the lowest cosine with exact preprocessing is 0.9996, at 2 it is 0.998.
JPEG_MARGIN = 3


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


class CLIP:
    """A trained CLIP with everything a lesson asks of it. `load_clip` makes one.

    model           the open_clip module: `encode_image(pixels)`, `encode_text(tokens)`, `logit_scale`
    preprocess      the weights' own: PIL picture → float32 `[3, image_size, image_size]`, normalised
    tokenizer       the weights' own: texts → int64 `[n, context_length]`
    name            what `load_clip` was asked for
    vocabulary      the words of the training captions, in lower case; None where they are not known
    familiarity     statistics of the pictures that it learned from (`models/familiar.py`); None where there are none
    """

    def __init__(
        self,
        model: torch.nn.Module,
        preprocess: Callable,
        tokenizer: Callable,
        name: str,
        vocabulary: Iterable[str] | None = None,
        familiarity: Familiarity | None = None,
    ):
        self.model, self.preprocess, self.tokenizer, self.name = model, preprocess, tokenizer, name
        self.vocabulary = (
            None if vocabulary is None else frozenset(part for word in vocabulary for part in words.words_of(word))
        )
        self.familiarity = familiarity
        self.device = next(model.parameters()).device
        self.context_length: int = tokenizer.context_length
        size = model.visual.image_size
        self.image_size: int = (
            size if isinstance(size, int) else size[0]
        )  # pixels a side; all of open_clip's are square
        resize_mode = getattr(model.visual, "preprocess_cfg", {}).get("resize_mode", "shortest")
        self._keeps_the_middle = resize_mode == "shortest"  # the shorter side is made to fit, the longer one is cut
        self._warned: set[str] = set()
        self._label_features: dict[tuple, torch.Tensor] = {}
        with torch.no_grad():
            nothing = tokenizer([""]).to(self.device)
            self.dim: int = model.encode_text(nothing).shape[1]  # the length of an embedding

    def __repr__(self) -> str:
        return f"CLIP({self.name!r}, dim={self.dim}, image_size={self.image_size}, device={self.device.type!r})"

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied with before the softmax: a learned number, about 10 to 100."""
        return float(self.model.logit_scale.detach().exp())

    @property
    def knows(self) -> str:
        """The kind of pictures that it learned from, in words, such as "photographs"; "" where that is not known."""
        return KNOWS.get(self.name, "")

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
        bytes, in any mix, as `pixels.load_image` takes them. Worker threads read and preprocess them, a batch
        at a time; a bar shows when it takes more than two seconds.
        PIL pictures in mode RGB and L give what open_clip's own preprocessing gives; JPEG *files* are decoded
        at a reduced scale where they are much larger than the model's image size (cosine ≥ 0.999 to exact).
        Raises ImageError, naming the picture, where one cannot be read.
        """
        gates.whole_number("batch_size", batch_size, 1)
        sources = [images] if is_one(images) else images
        total = len(sources) if hasattr(sources, "__len__") else None
        ready = self._preprocessed(sources, batch_size)
        if total != 1:
            ready = runtime.progress(ready, total, "encoding", "picture")
        features = [torch.zeros(0, self.dim)]
        while batch := list(islice(ready, batch_size)):
            features.append(self.encode_prepared(batch))
        return torch.cat(features)

    @bounded
    def prepare(self, image) -> torch.Tensor:
        """One picture, read and preprocessed as in `encode_images`: float32 `[3, image_size, image_size]`, normalised.

        An index uses it to go on where one picture of many cannot be read. Threads may call it. Raises ImageError.
        """
        picture = load_image(image, at_least=JPEG_MARGIN * self.image_size)
        if self._keeps_the_middle:
            picture = middle(picture)
        return self.preprocess(picture)

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

        Warns where a text is too long for the model, or contains words that no training caption contained.
        Raises ValueError for what is not a text, for a text without a word, and for one with no word that a training
        caption contained.
        """
        gates.whole_number("batch_size", batch_size, 1)
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
        if 0 in shape[2:]:
            raise ValueError(f"pixels of shape {shape} show nothing: height and width are at least 1.")
        most = pixels.detach().abs().amax().item() if shape[0] else 0.0
        if not math.isfinite(most):
            raise ValueError("pixels lie in 0…1; among these are some that are infinite or not a number (NaN).")
        if most > 4:  # a generator may overshoot 1 a little; 0…255 is a mistake
            raise ValueError("pixels lie in 0…1; these look like 0…255: divide by 255.")
        inputs = self.preprocess(pixels.to(self.device, torch.float32))  # [n, 3, image_size, image_size]
        return self.model.encode_image(inputs, normalize=True)  # [n, dim]

    def each_tower(self) -> list[CLIP]:
        """A CLIP for every image tower of this one: two for the guide; for any other CLIP the list holds itself."""
        if not isinstance(self.model.visual, Towers):
            return [self]
        return [self._seeing_with(tower) for tower in self.model.visual.towers]

    def folded(self) -> CLIP:
        """The same CLIP with a faster image tower, which cannot be trained; outputs differ by rounding alone.

        Works on open_clip's ResNet and the guide's towers (`models.towers.fold`); any other CLIP returns itself.
        """
        if not can_fold(self.model.visual):
            return self
        return self._seeing_with(fold(copy.deepcopy(self.model.visual)))

    def _seeing_with(self, tower: torch.nn.Module) -> CLIP:
        """A copy that shares everything but its image tower."""
        other = copy.copy(self)
        other.model = copy.copy(self.model)
        other.model._modules = {**self.model._modules, "visual": tower}
        return other

    def familiar(self, images) -> torch.Tensor:
        """How much pictures are like those that this CLIP learned from: float32 `[n]`, 0…1.

        It looks at how a picture is made, and not at what it shows (`models/familiar.py`). Below UNFAMILIAR (0.4) a
        picture is rather of another kind, such as a photograph for the pocket CLIP and a drawing for the photo CLIP:
        what the CLIP says of it means little. `images` as in `encode_images`.
        Raises ValueError where `familiarity` is None, ImageError where a picture cannot be read.
        """
        if self.familiarity is None:
            raise ValueError(f"{self.name} brings no statistics of its training pictures: see `CLIP.familiarity`.")
        ready = self._preprocessed([images] if is_one(images) else images, 64)
        found = [torch.zeros(0)]
        while batch := list(islice(ready, 64)):
            found.append(self.familiarity(self.model, torch.stack(batch).to(self.device)))
        return torch.cat(found)

    def note_on(self, image) -> str:
        """A sentence where a picture is unlike those that this CLIP learned from; "" where it is like them.

        Also "" where no statistics of them are known. Raises ImageError.
        """
        if self.familiarity is None or self.familiar(image).item() >= UNFAMILIAR:
            return ""
        others = " and ".join(f"{name} ({kind})" for name, kind in KNOWS.items() if name != self.name)
        kind = f" ({self.knows})" if self.knows else ""
        return (
            f"This picture is unlike those that {self.name} learned from{kind}: do not rely on its answer. "
            f"For other kinds there is {others}."
        )

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
        gates.real_number("a temperature", temperature, above=0)
        label_features = self._encode_labels(labels, templates)
        cosines = (self.encode_images(images) @ label_features.T).double()
        cosines = cosines - cosines.amax(dim=-1, keepdim=True)  # none is above 0: no temperature is too small
        return (cosines / temperature).softmax(dim=-1).float()

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
        words.check(self.name, labels)  # no template gives a label words that it has not
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
        """Texts → tokens, int64 `[n, context_length]`, padded at the end; warnings and errors as in `encode_texts`."""
        texts = _checked_texts(texts, "a text")
        if not texts:
            return torch.zeros(0, self.context_length, dtype=torch.int64)
        self._check_words(texts)
        tokens = self.tokenizer(texts)
        for text, row in zip(texts, tokens, strict=True):
            if row[-1] != 0 and hasattr(self.tokenizer, "encode"):  # full: as long as it may be, or cut off
                length = len(self.tokenizer.encode(text)) + 2  # a start and an end
                if length > self.context_length:
                    start = text if len(text) <= 40 else text[:40] + "…"
                    runtime.warn(
                        f"{self.name} reads {self.context_length} tokens, and {start!r} has {length}: "
                        "the end of the text is left out."
                    )
        return tokens

    def tokens(self, text: str) -> list[str]:
        """The pieces that the tokenizer cuts a text into, with its start and its end: a frequent word is one piece.

        Byte-pair encoding (Sennrich et al. 2016, arxiv.org/abs/1508.07909): `</w>` closes a word, so a word of several
        pieces has it on the last one only. The pieces are not cut to the context length.
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
        """The words that no training caption contained, in order, each once; [] where the vocabulary is not known."""
        texts = _checked_texts(texts, "a text")
        return [] if self.vocabulary is None else words.unknown(texts, self.vocabulary.__contains__)

    def _check_words(self, texts: list[str]) -> None:
        """Refuses a text that says nothing to this CLIP, and warns of words that it never met, once of each."""
        words.check(self.name, texts, None if self.vocabulary is None else self.vocabulary.__contains__)
        new = [word for word in self.unknown_words(texts) if word not in self._warned]
        if new:
            self._warned.update(new)
            runtime.warn(words.never_met(self.name, new))


def _checked_texts(texts: str | Iterable[str], what: str) -> list[str]:
    texts = [texts] if isinstance(texts, str) else list(texts) if isinstance(texts, Iterable) else [texts]
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{what} is a string, not {text!r:.60}.")
    return texts


# ---------------------------------------------------------------------------------------------------
# Loading


def load_clip(name: str | None = None, device: str | torch.device | None = None) -> CLIP:
    """A trained CLIP by its name; None is the one that MMLESSON_CLIP names, or else the pocket model.

    "pocket-clip"                  the course's own, for drawings, from data/, its sha256 checked; no network
    "photo-clip"                   the course's own for photographs; likewise
    "ViT-B-32/laion2b_s34b_b79k"   an open_clip architecture and a tag of weights for it
    "hf-hub:organisation/model"    an open_clip model on the Hugging Face hub
    "local-dir:path/to/folder"     a folder with open_clip_config.json and open_clip_model.safetensors

    Files from the hub are downloaded once; while they are in its cache the network is not asked again.
    Weights are safetensors, never unpickled, in float32, frozen (`requires_grad` False), in `eval` mode, on
    `device` (None: the best one here). A model without its trained weights is never returned.
    Raises ValueError for an unknown name, AssetError (a RuntimeError) where files are missing, damaged or
    cannot be fetched; each says what to do.
    """
    from_environment = name is None and bool(os.environ.get(ENVIRONMENT))
    if name is None:
        name = os.environ[ENVIRONMENT] if from_environment else POCKET
    if not isinstance(name, str) or not name:
        raise ValueError(f"the name of a CLIP is a string, such as {POCKET!r}, not {name!r}.")
    device = runtime.device(device)
    try:
        return _assemble(_find(name, device))
    except (AssetError, ValueError) as error:
        if from_environment:
            raise type(error)(f"{error} (The environment variable {ENVIRONMENT} named it.)") from error
        raise


def _find(name: str, device: torch.device) -> clips.Parts:
    if name in (POCKET, PHOTO):
        return clips.from_folder(assets.model_dir(name), name, device)
    if name.startswith("local-dir:"):
        return clips.from_folder(folders.local_folder(name), name, device)
    if name.startswith("hf-hub:"):
        return clips.from_hub(name.removeprefix("hf-hub:"), name, device)
    return clips.from_tag(name, device)


def _assemble(parts: clips.Parts) -> CLIP:
    return CLIP(parts.model, parts.preprocess, parts.tokenizer, parts.name, parts.vocabulary, parts.familiarity)


def load_judge(device: str | torch.device | None = None) -> CLIP:
    """The judge: a second pocket CLIP, of another architecture and seed, that rates generated pictures.

    It takes no part in making them. A generator learns to please the CLIP that guides it, quirks included, so another
    CLIP has to say what a picture shows. Raises AssetError where its files are missing or damaged.
    """
    return _assemble(clips.from_folder(assets.model_dir(JUDGE), JUDGE, runtime.device(device)))


def load_guide(device: str | torch.device | None = None) -> CLIP:
    """The CLIP that leads VQGAN+CLIP: the one that MMLESSON_CLIP names, or else the pocket guide.

    The pocket guide has the text tower of the pocket CLIP and two image towers of its own, which were trained on
    half-finished pictures (`train/guide.py`). Raises the errors of `load_clip`.
    """
    if os.environ.get(ENVIRONMENT):
        return load_clip(device=device)
    return guide_from(assets.model_dir(GUIDE), device)


def guide_from(folder: Path, device: str | torch.device | None = None) -> CLIP:
    """The pocket CLIP with the image towers in `folder`.

    Raises AssetError where the towers are missing, damaged or of another form.
    """
    clip = load_clip(POCKET, device)
    towers = guide_towers(clip)
    reading.fill(towers, folder / GUIDE_WEIGHTS, "guide")  # every weight has to be there
    if clip.device.type == "cpu":
        towers.to(memory_format=torch.channels_last)
    clip.model.visual = towers.eval().requires_grad_(False)
    clip.name = GUIDE
    return clip
