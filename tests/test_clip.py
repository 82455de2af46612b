"""clip.py: equal to open_clip's own to 1e-6, and a clear sentence for everything that can go wrong.

Three models: a small random one, the pocket model of the course, and a random ViT-B-32 of full size, each an
open_clip model folder. What open_clip itself makes of the same folder is the reference.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

from mmlesson import runtime
from mmlesson.clip import CLIP, JPEG_MARGIN, POCKET, contrastive_loss, load_clip, load_guide
from mmlesson.gates import AssetError
from mmlesson.models import assets
from mmlesson.pixels import ImageError

SMALL = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 64, "layers": 2, "head_width": 32},
        "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.4, 0.6],
        "std": [0.5, 0.25, 0.3],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}
VIT_B_32 = {
    "model_cfg": open_clip.get_model_config("ViT-B-32"),
    "preprocess_cfg": {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD},
}
WORDS = ["a", "picture", "of", "red", "apple", "t-shirt", "cat", "dog", "photo", "the"]


def write_model(folder: Path, config: dict, words: list[str] | None = None) -> Path:
    """A random model of `config` as a model folder."""
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}")
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    if words:
        (folder / "vocabulary.json").write_text(json.dumps({"words": words}))
    return folder


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "small", SMALL, WORDS)


@pytest.fixture(scope="session")
def vit_folder(tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("models") / "vit-b-32", VIT_B_32)
    yield folder
    shutil.rmtree(folder)  # 600 MB


@pytest.fixture(scope="session")
def small_model(small_folder):
    return load_clip(f"local-dir:{small_folder}", device="cpu")


@pytest.fixture
def clip(small_model):
    """The small model as fresh as after loading: nothing warned of, nothing kept."""
    small_model._warned.clear()
    small_model._label_features.clear()
    return small_model


@dataclass
class Pair:
    """Ours, and open_clip's own."""

    clip: CLIP
    model: torch.nn.Module
    preprocess: object
    tokenizer: object


@pytest.fixture(scope="session", params=["small", "pocket", "ViT-B-32"])
def pair(request):
    if request.param == "pocket":
        folder, clip = assets.model_dir(POCKET), load_clip(POCKET, device="cpu")
    else:
        folder = request.getfixturevalue({"small": "small_folder", "ViT-B-32": "vit_folder"}[request.param])
        clip = load_clip(f"local-dir:{folder}", device="cpu")
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    return Pair(clip, model.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{folder}"))


def photo(seed: int = 0, width: int = 120, height: int = 90) -> Image.Image:
    """A picture with large shapes and small ones."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    fine = rng.normal(0, 8, (height, width, 3))
    return Image.fromarray((np.asarray(coarse) + fine).clip(0, 255).astype(np.uint8))


PICTURES = [photo(0), photo(1, 70, 200), photo(2, 500, 300).convert("L"), photo(3, 64, 64)]
TEXTS = ["a picture of a cat", "a red apple", "the dog", ""]
TEMPLATES = ["a picture of a {}", "a photo of the {}", "{}"]


# --------------------------------------------------------------------------------- equal to open_clip's


@torch.no_grad()
def test_encode_equals_open_clip(pair):
    ours = pair.clip.encode_images(PICTURES)
    theirs = pair.model.encode_image(torch.stack([pair.preprocess(picture) for picture in PICTURES]), normalize=True)
    assert (ours - theirs).abs().max() <= 1e-6
    texts = pair.clip.encode_texts(TEXTS)
    assert (texts - pair.model.encode_text(pair.tokenizer(TEXTS), normalize=True)).abs().max() <= 1e-6
    assert torch.equal(pair.clip.tokenize(TEXTS), pair.tokenizer(TEXTS))
    for features, n in [(ours, len(PICTURES)), (texts, len(TEXTS))]:
        assert (
            features.shape == (n, pair.clip.dim) and features.dtype == torch.float32 and features.device.type == "cpu"
        )
        assert not features.requires_grad and (features.norm(dim=1) - 1).abs().max() < 1e-5
    assert (pair.clip.similarity(PICTURES, TEXTS) - theirs @ texts.T).abs().max() <= 1e-6
    assert pair.clip.logit_scale == pytest.approx(pair.model.logit_scale.exp().item())
    assert pair.clip.temperature == pytest.approx(1 / pair.clip.logit_scale)
    assert pair.preprocess(PICTURES[0]).shape == (3, pair.clip.image_size, pair.clip.image_size)


@torch.no_grad()
def test_classify_equals_open_clip(pair):
    labels = ["cat", "dog", "red apple"]
    weights = open_clip.build_zero_shot_classifier(
        pair.model, pair.tokenizer, labels, TEMPLATES, num_classes_per_batch=None
    )
    features = pair.model.encode_image(torch.stack([pair.preprocess(picture) for picture in PICTURES]), normalize=True)
    theirs = (pair.model.logit_scale.exp() * features @ weights).softmax(dim=-1)
    ours = pair.clip.classify(PICTURES, labels, TEMPLATES)
    assert ours.shape == (len(PICTURES), 3) and ours.dtype == torch.float32
    assert (ours - theirs).abs().max() <= 1e-6
    assert (ours.sum(dim=1) - 1).abs().max() <= 1e-6
    plain = (
        pair.model.logit_scale.exp() * features @ pair.model.encode_text(pair.tokenizer(labels), normalize=True).T
    ).softmax(-1)
    assert (pair.clip.classify(PICTURES, labels) - plain).abs().max() <= 1e-6


def test_loss_equals_open_clip(pair):
    with torch.no_grad():
        image_features, text_features = pair.clip.encode_images(PICTURES), pair.clip.encode_texts(TEXTS)
    for scale in (pair.model.logit_scale.exp().detach(), 1.0, 100.0):
        ours = contrastive_loss(image_features, text_features, scale)
        assert ours.shape == () and abs(ours - open_clip.ClipLoss()(image_features, text_features, scale)) <= 1e-6


def test_loss_and_its_gradients():
    generator = runtime.generator(0)
    for n, dim in [(1, 4), (2, 8), (64, 32)]:
        inputs = [F.normalize(torch.randn(n, dim, generator=generator), dim=-1) for _ in range(2)] + [
            torch.tensor(14.0)
        ]
        ours, theirs = ([value.clone().requires_grad_() for value in inputs] for _ in range(2))
        losses = contrastive_loss(*ours), open_clip.ClipLoss()(*theirs)
        for loss in losses:
            loss.backward()
        assert abs(losses[0] - losses[1]) <= 1e-6
        assert all((one.grad - other.grad).abs().max() <= 1e-6 for one, other in zip(ours, theirs, strict=True))
    same = torch.ones(8, 4) / 2
    assert contrastive_loss(same, same, 10.0).item() == pytest.approx(math.log(8), abs=1e-6), (
        "blind guessing costs log(n)"
    )
    assert contrastive_loss(torch.eye(8), torch.eye(8), 100.0) < 1e-6, "all pairs found cost nothing"
    with pytest.raises(ValueError, match=r"\[n, dim\] of one shape, not \[3, 4\] and \[2, 4\]"):
        contrastive_loss(torch.zeros(3, 4), torch.zeros(2, 4), 1.0)


def test_pixels_equal_pictures(pair):
    size = pair.clip.image_size
    pictures = [photo(seed, size, size) for seed in range(2)]
    pixels = (
        torch.stack([torch.from_numpy(np.asarray(picture).copy()) for picture in pictures]).permute(0, 3, 1, 2) / 255
    )
    assert (pair.clip.encode_pixels(pixels) - pair.clip.encode_images(pictures)).abs().max() <= 1e-6
    for width, height in [
        (2 * size, 2 * size),
        (size // 2, size // 2),
        (size + 31, size + 7),
    ]:  # resized as pictures are, but not rounded
        picture = photo(5, width, height)
        pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None] / 255
        assert F.cosine_similarity(pair.clip.encode_pixels(pixels), pair.clip.encode_images(picture)).item() > 0.999


@pytest.mark.parametrize("load", [load_clip, load_guide])
def test_folded_it_says_the_same(load):
    """Of the pocket CLIP and the guide, whose batch norms are trained: features and gradients, and the CLIP it came from is left alone."""
    plain = load()
    folded = plain.folded()
    norms = [
        sum(isinstance(module, torch.nn.BatchNorm2d) for module in clip.model.visual.modules())
        for clip in (plain, folded)
    ]
    assert norms[0] > 0 and norms[1] == 0
    pixels = torch.rand(3, 3, 64, 64, generator=runtime.generator(0))
    gradients = []
    for clip in (plain, folded):
        seen = pixels.clone().requires_grad_()
        features = clip.encode_pixels(seen)
        gradients.append(torch.autograd.grad(features[:, 0].sum(), seen)[0])
    torch.testing.assert_close(features, plain.encode_pixels(pixels), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(*gradients, atol=1e-4 * float(gradients[0].abs().max()), rtol=1e-3)
    assert torch.equal(folded.encode_texts(["a cat"]), plain.encode_texts(["a cat"]))


def test_what_has_no_batch_norms_is_not_folded(clip):
    assert clip.folded() is clip


def test_gradients_reach_every_pixel(pair):
    size = pair.clip.image_size
    for shape in [(2, 3, size, size), (1, 3, size + 20, size + 20)]:
        pixels = torch.rand(shape, generator=runtime.generator(0)).requires_grad_()
        features = pair.clip.encode_pixels(pixels)
        assert features.shape == (shape[0], pair.clip.dim) and features.requires_grad
        (features @ pair.clip.encode_texts("a red apple").T).sum().backward()
        assert torch.isfinite(pixels.grad).all() and (pixels.grad.abs().sum(dim=1) > 0).float().mean() > 0.99
    assert all(not weight.requires_grad and weight.grad is None for weight in pair.clip.model.parameters())
    assert not pair.clip.model.training


# ------------------------------------------------------------------------------------------- pictures


def test_any_kind_and_number_of_pictures(clip, tmp_path):
    path = tmp_path / "a.png"
    PICTURES[0].save(path)
    same = [PICTURES[0], path, str(path), path.read_bytes(), np.asarray(PICTURES[0]), np.asarray(PICTURES[0]) / 255.0]
    features = clip.encode_images(same)
    assert features.shape == (6, 32) and (features - features[0]).abs().max() <= 1e-6
    for one in same:
        assert (clip.encode_images(one) - features[:1]).abs().max() <= 1e-6
    assert (clip.encode_images(picture for picture in PICTURES) - clip.encode_images(tuple(PICTURES))).abs().max() == 0
    assert clip.encode_images(np.zeros((3, 20, 20, 3), np.uint8)).shape == (3, 32), "an array of pictures is many"
    assert clip.encode_images([]).shape == (0, 32) and clip.encode_images([]).dtype == torch.float32
    assert clip.similarity([], ["a cat"]).shape == (0, 1) and clip.similarity(PICTURES, []).shape == (4, 0)
    assert clip.classify([], ["a cat"]).shape == (0, 1)
    assert clip.classify(PICTURES[0], ["a cat"]).tolist() == [[1.0]]


def test_the_size_of_a_batch_does_not_matter(pair):
    n = 70 if pair.clip.image_size < 100 else 3
    pictures = [photo(seed) for seed in range(n)]
    whole = pair.clip.encode_images(pictures, batch_size=64)
    assert (pair.clip.encode_images(pictures, batch_size=1) - whole).abs().max() <= 1e-5
    texts = [f"a picture of {n} dogs" for n in range(10)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert (pair.clip.encode_texts(texts, batch_size=1) - pair.clip.encode_texts(texts)).abs().max() <= 1e-5


def test_jpeg_files_keep_the_cosine(pair, tmp_path):
    side = JPEG_MARGIN * pair.clip.image_size
    paths = []
    for seed, size in enumerate(
        [(640, 480), (2 * side + 9, 2 * side + 2), (4 * side + 1, 5 * side)]
    ):  # the last two hardly above
        paths.append(tmp_path / f"{seed}.jpg")
        photo(seed, *size).save(paths[-1], quality=90)
    with torch.no_grad():
        exact = torch.stack([pair.preprocess(Image.open(path)) for path in paths])
        theirs = pair.model.encode_image(exact, normalize=True)
    assert F.cosine_similarity(pair.clip.encode_images(paths), theirs).min() >= 0.999


def test_pictures_are_prepared_in_order_by_worker_threads(clip, monkeypatch):
    threads, original = set(), clip.preprocess

    def preprocess(picture):
        threads.add(threading.get_ident())
        time.sleep(0.002 * (picture.width % 3))  # the first are not the first to be ready
        return original(picture)

    pictures = [photo(i, 64 + i, 64) for i in range(60)]
    expected = clip.encode_images(pictures)
    monkeypatch.setattr(clip, "preprocess", preprocess)
    assert (clip.encode_images(iter(pictures), batch_size=8) - expected).abs().max() <= 1e-5
    assert threading.get_ident() not in threads


def test_a_generator_is_read_a_little_ahead_only(clip):
    """Any number of pictures: they are never all in memory."""
    drawn, ahead = 0, 0

    def endless():
        nonlocal drawn
        while True:
            drawn += 1
            yield photo(drawn % 5, 64, 64)

    prepared = clip._preprocessed(endless(), batch_size=8)
    for taken in range(1, 30):
        next(prepared)
        ahead = max(ahead, drawn - taken)
    prepared.close()
    assert ahead <= 8


def test_a_bar_shows_after_two_seconds(clip, monkeypatch, capsys):
    clip.encode_images([photo(0)] * 5)
    assert capsys.readouterr().err == ""
    original = clip.preprocess
    monkeypatch.setattr(clip, "preprocess", lambda picture: time.sleep(0.4) or original(picture))
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    clip.encode_images([photo(0)] * 8 * threads)
    assert "picture" in capsys.readouterr().err


def test_a_picture_that_cannot_be_read_is_named(clip, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    for images, words in [
        ([PICTURES[0], broken], "broken.jpg"),
        ([PICTURES[0], tmp_path / "gone.png"], "gone.png does not exist"),
        ([PICTURES[0], np.zeros((5, 5, 9), np.uint8)], r"images\[1\]: the array given is 5×5×9"),
        ([PICTURES[0], b""], r"images\[1\].*empty"),
        (tmp_path, "is a folder"),
        (7, "not int"),
        (torch.zeros(1, 3, 4, 4), "to_images"),
    ]:
        for call in (clip.encode_images, lambda images: clip.classify(images, ["a cat"])):
            with pytest.raises(ImageError, match=words):
                call(images)


def test_pixels_that_are_none(clip):
    for pixels, words in [
        (torch.zeros(3, 64, 64), r"not \[3, 64, 64\]"),
        (torch.zeros(1, 1, 64, 64), r"not \[1, 1, 64, 64\]"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), r"floats in 0…1"),
        (torch.full((1, 3, 64, 64), 200.0), "divide by 255"),
        ([PICTURES[0]], "not list"),
    ]:
        with pytest.raises(ValueError, match=words):
            clip.encode_pixels(pixels)
    assert clip.encode_pixels(torch.full((1, 3, 8, 8), 1.2)).shape == (1, 32), "a little over 1 is a generator's way"
    for size in (0, -1, 2.5, None):
        with pytest.raises(ValueError, match="batch_size"):
            clip.encode_images(PICTURES, batch_size=size)


# --------------------------------------------------------------------------------------------- texts


def test_texts(clip):
    assert clip.encode_texts("a cat").shape == (1, 32)
    assert clip.encode_texts([]).shape == (0, 32) and clip.tokenize([]).shape == (0, 20)
    assert clip.tokenize(["a cat", "a dog"]).shape == (2, 20) and clip.tokenize("a cat").dtype == torch.int64
    assert torch.equal(clip.encode_texts(text for text in ["a cat", "a dog"]), clip.encode_texts(["a cat", "a dog"]))
    for wrong in [3, None, ["a cat", 3], [None], [["a cat"]], b"a cat"]:
        for call in (
            clip.encode_texts,
            clip.tokenize,
            clip.unknown_words,
            lambda text: clip.similarity(PICTURES[0], text),
        ):
            with pytest.raises(ValueError, match="is a string, not"):
                call(wrong)


def test_a_text_that_is_too_long_says_so(clip):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip.encode_texts("a " * 18)  # with start and end exactly 20
    with pytest.warns(UserWarning, match="reads 20 tokens, and 'a a a.* has 21: its end is left out") as caught:
        tokens = clip.tokenize("a " * 19)
    assert caught[0].filename == __file__, "the warning points at the caller"
    assert tokens.shape == (1, 20) and tokens[0, -1] == clip.tokenizer.eot_token_id


def test_tokens_are_readable(clip):
    assert clip.tokens("A red  apple") == ["<start_of_text>", "a</w>", "red</w>", "apple</w>", "<end_of_text>"]
    pieces = clip.tokens("a xylophonist's piñata 🍎")
    assert "".join(pieces[1:-1]).replace("</w>", " ") == "a xylophonist 's piñata 🍎 "
    assert len(pieces) > 9, "rare words come in pieces"
    assert len(clip.tokens("a " * 50)) == 52, "not cut off"
    with pytest.raises(ValueError, match="is a string"):
        clip.tokens(["a cat"])


def test_unknown_words_are_named_once(clip):
    assert clip.unknown_words(["A red zeppelin, the cat's T-shirt", "a yak & a zeppelin"]) == ["zeppelin", "yak"]
    with pytest.warns(UserWarning, match="never met the word 'zeppelin' in its training") as caught:
        clip.encode_texts("a red zeppelin")
    assert caught[0].filename == __file__, "the warning points at the caller"
    with pytest.warns(UserWarning, match="never met the word 'yak'"):
        clip.classify(PICTURES[0], ["a yak", "a zeppelin"], ["the {}"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip.similarity(PICTURES[0], ["a yak", "a red zeppelin"])
        clip.encode_texts(["a picture of a red apple"])
    with pytest.warns(UserWarning, match="'w0', .*'w7' and 4 more"):
        clip.encode_texts(" ".join(f"w{i}" for i in range(12)))


def test_the_pocket_model_knows_its_words():
    clip = load_clip(POCKET)
    assert clip.unknown_words("a picture of a red apple left of a cat on a blue background") == []
    assert clip.unknown_words(["a photo of a dog", "a person", "an astronaut"]) == []
    assert clip.unknown_words("a zeppelin") == ["zeppelin"]


def test_a_model_without_a_vocabulary_warns_of_nothing(small_folder, tmp_path):
    folder = shutil.copytree(small_folder, tmp_path / "copy")
    (folder / "vocabulary.json").unlink()
    clip = load_clip(f"local-dir:{folder}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip.encode_texts("a zeppelin")
    assert clip.vocabulary is None and clip.unknown_words("a zeppelin") == []


# -------------------------------------------------------------------------------------- classification


def test_temperature_and_templates(clip):
    labels = ["cat", "dog", "red apple"]
    cold, warm = (clip.classify(PICTURES, labels, temperature=value) for value in (0.01, 10.0))
    assert (cold.max(dim=1).values > warm.max(dim=1).values).all() and (warm - 1 / 3).abs().max() < 0.1
    assert torch.equal(cold.argmax(dim=1), warm.argmax(dim=1))
    one = clip.classify(PICTURES, labels, "a picture of a {}")
    assert (one - clip.classify(PICTURES, [f"a picture of a {label}" for label in labels])).abs().max() <= 1e-6
    assert clip.classify(PICTURES, ("cat", "dog{}"), ["a {} of a {}"]).shape == (4, 2)
    for arguments, words in [
        (("cat",), "not one text"),
        (([],), "at least one label"),
        (([3],), "a label is a string, not 3"),
        ((None,), "a label is a string, not None"),
        ((labels, []), "templates is empty"),
        ((labels, ["a picture"]), r"'a picture' has no {}"),
        ((labels, [None]), "a template is a string"),
        ((labels, None, 0), "above 0"),
        ((labels, None, -1.0), "above 0"),
        ((labels, None, float("nan")), "above 0"),
    ]:
        with pytest.raises(ValueError, match=words):
            clip.classify(PICTURES[0], *arguments)


def test_label_embeddings_are_kept_until_the_weights_change(clip, monkeypatch):
    calls = []
    original = clip.encode_texts
    monkeypatch.setattr(clip, "encode_texts", lambda *texts: calls.append(texts) or original(*texts))
    before = clip.classify(PICTURES, ["a cat", "a dog"])
    assert torch.equal(clip.classify(PICTURES, ["a cat", "a dog"]), before) and len(calls) == 1
    clip.classify(PICTURES, ["a dog", "a cat"])
    assert len(calls) == 2, "another order is another question"
    old = clip.model.token_embedding.weight.detach().clone()
    with torch.no_grad():
        clip.model.token_embedding.weight.mul_(-1)
    try:
        after = clip.classify(PICTURES, ["a cat", "a dog"])
        assert len(calls) == 3 and not torch.allclose(after, before)
    finally:
        with torch.no_grad():
            clip.model.token_embedding.weight.copy_(old)
    for i in range(40):
        clip.classify(PICTURES[0], [WORDS[i // 10], WORDS[i % 10]])
    assert len(clip._label_features) <= 16, "and not without end"


# ------------------------------------------------------------------------------------------- loading


def test_what_a_loaded_model_says_of_itself(clip, small_folder):
    assert (clip.dim, clip.image_size, clip.context_length, clip.device.type) == (32, 64, 20, "cpu")
    assert repr(clip) == f"CLIP('local-dir:{small_folder}', dim=32, image_size=64, device='cpu')"
    assert clip.name == f"local-dir:{small_folder}"
    assert "apple" in clip.vocabulary and "shirt" in clip.vocabulary


def test_the_environment_chooses(small_folder, monkeypatch):
    monkeypatch.setenv("MMLESSON_CLIP", f"local-dir:{small_folder}")
    assert load_clip().name == f"local-dir:{small_folder}"
    assert load_clip(POCKET).name == POCKET, "a name in the call goes before it"
    monkeypatch.setenv("MMLESSON_CLIP", "ViT-B-32/laion")
    with pytest.raises(ValueError, match="no CLIP named 'ViT-B-32/laion'.*MMLESSON_CLIP"):
        load_clip()
    monkeypatch.setenv("MMLESSON_CLIP", "local-dir:/nowhere")
    with pytest.raises(AssetError, match="no folder /nowhere.*MMLESSON_CLIP"):
        load_clip()
    monkeypatch.setenv("MMLESSON_CLIP", "")
    assert load_clip().name == POCKET


@pytest.mark.parametrize("name, words", [
    ("ViT-B-32", "Near it: ViT-B-32/openai"),
    ("ViT-B-32/laion2b", "Near it: ViT-B-32/laion2b_e16, ViT-B-32/laion2b_s34b_b79k"),
    ("vit-b32/laion2b_s34b_b79k", "ViT-B-32/laion2b_s34b_b79k"),
    ("pocket", "A name is pocket-clip"),
    ("a/b/c", "There is no CLIP named 'a/b/c'"),
    ("hf-hub:not a repository", "organisation/model"),
    ("hf-hub:", "organisation/model"),
    (42, "is a string"),
])  # fmt: skip
def test_an_unknown_name_gets_near_ones(name, words):
    with pytest.raises(ValueError, match=words):
        load_clip(name)


def test_a_folder_without_its_prefix(small_folder, monkeypatch):
    monkeypatch.chdir(small_folder.parent)
    with pytest.raises(ValueError, match="Near it: local-dir:small"):
        load_clip("small")
    assert load_clip("local-dir:small").dim == 32
    with pytest.raises(ValueError, match="not a device"):
        load_clip("local-dir:small", device="abacus")


class Bomb:
    """A pickle that does something when it is opened."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def damage(folder: Path, what: str) -> None:
    weights, config = folder / "open_clip_model.safetensors", folder / "open_clip_config.json"
    if what == "no config":
        config.unlink()
    elif what == "config that is not JSON":
        config.write_text("{")
    elif what == "config of something else":
        config.write_text('{"model_type": "bert"}')
    elif what == "config of no model":
        config.write_text('{"model_cfg": {"embed_dim": 8}}')
    elif what == "vocabulary that is none":
        (folder / "vocabulary.json").write_text('["a"]')
    elif what == "no weights":
        weights.unlink()
    elif what == "weights cut off":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif what == "weights of noise":
        weights.write_bytes(os.urandom(5000))
    elif what == "empty weights":
        weights.write_bytes(b"")
    elif what == "weights without one tensor":
        save_file({key: value for key, value in load_file(weights).items() if key != "logit_scale"}, weights)
    elif what == "weights of another shape":
        save_file({**load_file(weights), "text_projection": torch.zeros(3, 3)}, weights)
    elif what.startswith("pickle"):
        safe = load_file(weights)
        weights.unlink()
        torch.save(Bomb(folder / "it ran"), folder / what.split()[1])
        if what.endswith("beside"):
            save_file(safe, folder / "mine.safetensors")


@pytest.mark.parametrize("what, words", [
    ("no config", "open_clip_config.json is missing"),
    ("config that is not JSON", "is not an open_clip model folder, or damaged"),
    ("config of something else", "is not an open_clip model folder, or damaged"),
    ("config of no model", "damaged, or do not fit"),
    ("vocabulary that is none", "or damaged"),
    ("no weights", "open_clip_model.safetensors is missing .there are no weights"),
    ("weights cut off", "are damaged, or do not fit"),
    ("weights of noise", "are damaged, or do not fit"),
    ("empty weights", "are damaged, or do not fit"),
    ("weights without one tensor", "are damaged, or do not fit"),
    ("weights of another shape", "are damaged, or do not fit"),
    ("pickle open_clip_pytorch_model.bin", "open_clip_pytorch_model.bin, a pickle"),
    ("pickle model.pth", "model.pth, a pickle"),
    ("pickle weights.pt", "weights.pt, a pickle"),
    ("pickle open_clip_pytorch_model.bin beside", "open_clip_pytorch_model.bin, a pickle"),
])  # fmt: skip
def test_a_folder_without_sound_weights_is_refused(small_folder, tmp_path, what, words):
    folder = shutil.copytree(small_folder, tmp_path / "model")
    damage(folder, what)
    with pytest.raises(AssetError, match=words) as caught:
        load_clip(f"local-dir:{folder}")
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert not (folder / "it ran").exists(), "nothing was unpickled"


def test_safetensors_go_before_a_pickle(small_folder, tmp_path):
    folder = shutil.copytree(small_folder, tmp_path / "model")
    torch.save(Bomb(folder / "it ran"), folder / "open_clip_pytorch_model.bin")
    load_clip(f"local-dir:{folder}")
    (folder / "open_clip_pytorch_model.bin").unlink()
    (folder / "open_clip_model.safetensors").rename(folder / "mine.safetensors")
    load_clip(f"local-dir:{folder}")
    assert not (folder / "it ran").exists()


def test_a_damaged_or_missing_pocket_model(tmp_path, monkeypatch):
    for file in [*assets.model_dir(POCKET).iterdir(), assets.data_dir() / assets.MANIFEST]:
        copy = tmp_path / file.relative_to(assets.data_dir())
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    manifest = json.loads((tmp_path / assets.MANIFEST).read_text())
    keep = {name: entry for name, entry in manifest["files"].items() if name.startswith(f"models/{POCKET}/")}
    (tmp_path / assets.MANIFEST).write_text(json.dumps({"files": keep}))
    monkeypatch.setenv("MMLESSON_DATA", str(tmp_path))
    assert load_clip().name == POCKET
    weights = tmp_path / "models" / POCKET / "open_clip_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(AssetError, match="open_clip_model.safetensors is damaged"):
        load_clip()
    weights.unlink()
    with pytest.raises(AssetError, match="open_clip_model.safetensors is missing"):
        load_clip()


# ------------------------------------------------------------------------------------------ the network

CUT_OFF = """
import json, socket, sys, time
asked = 0
def cut_off(*arguments, **options):
    global asked
    asked += 1
    {how}
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = cut_off
import huggingface_hub.errors, mmlesson.assets, mmlesson.clip, open_clip  # before the clock runs
mmlesson.assets.is_offline = lambda: {offline}
for name in {names!r}:
    asked, start = 0, time.time()
    try:
        said = mmlesson.clip.load_clip(name, device="cpu").encode_texts(["a cat"])[0].tolist()
    except Exception as error:
        said = type(error).__name__ + ": " + str(error)
    print(json.dumps([said, asked, time.time() - start]))
"""


def load_without_network(
    *names: str, cache: Path, offline: bool = False, how: str = "raise OSError('cut off')", **environment
):
    """Load each name in a process that reaches nothing: `said` (the error, or an embedding), `asked` (how often), `seconds`."""
    code = CUT_OFF.format(names=names, offline=offline, how=how)
    variables = {**os.environ, "HF_HUB_CACHE": str(cache), "PYTHONPATH": str(assets.PACKAGE.parent), **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr
    keys = "said", "asked", "seconds"
    return [SimpleNamespace(**dict(zip(keys, json.loads(line), strict=True))) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    "how", [{}, {"offline": True}, {"HF_HUB_OFFLINE": "1"}], ids=["cut off", "no interface", "HF_HUB_OFFLINE"]
)
def test_without_a_network_one_sentence_names_the_file_and_the_ways_out(tmp_path, how):
    needs = {
        "ViT-B-32/laion2b_s34b_b79k": "open_clip_model.safetensors of laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        "hf-hub:someone/their-clip": "open_clip_model.safetensors of someone/their-clip",
        "ViTamin-S/datacomp1b": "pytorch_model.safetensors of jienengchen/ViTamin-S",
    }
    for (name, file), result in zip(needs.items(), load_without_network(*needs, cache=tmp_path, **how), strict=True):
        assert result.said.startswith(f"AssetError: {file}, which {name} needs, is not on this machine")
        assert "connect" in result.said and "pocket model" in result.said and "local-dir:" in result.said
        assert result.seconds < 10 and result.said.count(". ") == 0
        assert (result.asked > 0) == (not how), "nothing is asked where the network is known to be away"


def test_a_network_that_never_answers_does_not_hang(tmp_path):
    (result,) = load_without_network("ViT-B-32/laion2b_s34b_b79k", cache=tmp_path, how="time.sleep(60)")
    assert (
        result.said.startswith("AssetError: open_clip_model.safetensors of laion")
        and result.asked
        and result.seconds < 10
    )


def hub_cache(cache: Path, repository: str, files: list[Path]) -> None:
    """The hub's cache as it is after the files were downloaded."""
    folder, commit = cache / f"models--{repository.replace('/', '--')}", "0123456789" * 4
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    for file in files:
        (folder / "snapshots" / commit / file.name).symlink_to(file)


def test_what_is_cached_is_loaded_without_a_question(small_folder, vit_folder, tmp_path, clip):
    hub_cache(tmp_path, "someone/their-clip", list(small_folder.iterdir()))
    hub_cache(tmp_path, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", [vit_folder / "open_clip_model.safetensors"])
    hub_cache(tmp_path, "someone/half", [small_folder / "open_clip_model.safetensors"])
    names = "hf-hub:someone/their-clip", "ViT-B-32/laion2b_s34b_b79k", POCKET, "hf-hub:someone/half"
    hub, tag, pocket, half = load_without_network(*names, cache=tmp_path)
    assert hub.said == pytest.approx(clip.encode_texts("a cat")[0].tolist(), abs=1e-6)
    assert len(tag.said) == 512 and math.hypot(*tag.said) == pytest.approx(1, abs=1e-5)
    assert math.hypot(*pocket.said) == pytest.approx(1, abs=1e-5)
    assert hub.asked == tag.asked == pocket.asked == 0
    assert half.said.startswith("AssetError: open_clip_config.json of someone/half") and half.asked


def test_a_tag_brings_its_own_preprocessing(small_folder, monkeypatch):
    """Mean, std and QuickGELU belong to the weights; the architecture's defaults are another's."""
    published = open_clip.get_pretrained_cfg("ViT-B-32", "openai")
    seen = {}
    monkeypatch.setattr("mmlesson.models.hub.hub_file", lambda *arguments: small_folder / "open_clip_model.safetensors")
    monkeypatch.setattr("mmlesson.clip._build", lambda *arguments, **options: seen.update(options))
    load_clip("ViT-B/32/openai")
    assert seen["force_quick_gelu"] is True
    assert seen["force_preprocess_cfg"] == {
        key: published[key] for key in ("mean", "std", "interpolation", "resize_mode")
    }
    load_clip("ViT-B-16-SigLIP/webli")
    assert seen["force_preprocess_cfg"]["resize_mode"] == "squash" and seen["force_preprocess_cfg"]["mean"] == (
        0.5,
        0.5,
        0.5,
    )


class Hub:
    """Stands in for huggingface_hub's questions: a repository with these files."""

    def __init__(self, monkeypatch, folder: Path, files: list[str]):
        import huggingface_hub
        from huggingface_hub.errors import RemoteEntryNotFoundError

        self.downloaded = []

        def metadata(url, timeout):
            if url.rsplit("/", 1)[1] not in files:
                raise RemoteEntryNotFoundError("404", response=MagicMock())

        def download(repository, file, revision=None):
            self.downloaded.append(file)
            return str(folder / file)

        monkeypatch.setattr(assets, "is_offline", lambda: False)
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *arguments, **options: None)
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)


def test_the_hub_is_asked_for_safetensors_only(small_folder, monkeypatch):
    hub = Hub(
        monkeypatch,
        small_folder,
        ["open_clip_config.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"],
    )
    assert load_clip("hf-hub:someone/their-clip").dim == 32
    assert hub.downloaded == ["open_clip_model.safetensors", "open_clip_config.json"]
    hub = Hub(monkeypatch, small_folder, ["open_clip_config.json", "open_clip_pytorch_model.bin"])
    for name in ("hf-hub:someone/their-clip", "ViT-B-32/laion2b_s34b_b79k"):
        with pytest.raises(AssetError, match="has none of open_clip_model.safetensors.*pickle"):
            load_clip(name)
    assert hub.downloaded == []


def test_a_repository_that_is_not_there_and_a_download_that_breaks(small_folder, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    Hub(monkeypatch, small_folder, ["open_clip_model.safetensors"])

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(AssetError, match="was not downloaded whole .*No space left on device"):
        load_clip("hf-hub:someone/their-clip")

    def unknown(url, timeout):
        raise RepositoryNotFoundError("401", response=MagicMock())

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unknown)
    with pytest.raises(ValueError, match="no open repository 'someone/nothing'"):
        load_clip("hf-hub:someone/nothing")


def test_pictures_prepared_one_by_one_are_encoded_as_together():
    clip, images = (
        load_clip("pocket-clip", "cpu"),
        [Image.new("RGB", (70 + 9 * i, 64), (40 * i, 99, 200)) for i in range(5)],
    )
    prepared = [clip.prepare(image) for image in images]
    assert prepared[0].shape == (3, clip.image_size, clip.image_size)
    torch.testing.assert_close(clip.encode_prepared(prepared), clip.encode_images(images), rtol=0, atol=1e-6)


def test_the_fingerprint_is_that_of_the_weights():
    one, same = load_clip("pocket-clip", "cpu"), load_clip("pocket-clip", "cpu")
    assert one.fingerprint() == same.fingerprint() and len(one.fingerprint()) == 32
    with torch.no_grad():
        same.model.visual.conv1.weight[0, 0, 0, 0] += 0.5
    assert one.fingerprint() != same.fingerprint()
