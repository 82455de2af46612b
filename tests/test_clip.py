"""clip.py: equal to open_clip's own to 1e-6, and a clear sentence for everything that can go wrong.

Three models: a small random one, the pocket model of the course, and a random ViT-B-32 of full size, each an
open_clip model folder. What open_clip itself makes of the same folder is the reference.
"""

import math
import os
import shutil
import threading
import time
import warnings
from dataclasses import dataclass

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from small_clips import WORDS

from mmlesson import gates, runtime
from mmlesson.clip import CLIP, JPEG_MARGIN, POCKET, contrastive_loss, load_clip, load_guide
from mmlesson.models import assets
from mmlesson.pixels import ImageError


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
TEXTS = ["a picture of a cat", "a red apple", "the dog", "a"]
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
    """Features and gradients are the same, folded or not, and the CLIP that it came from is left alone."""
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


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (40, 4000)])
def test_a_very_long_picture_is_cut_before_it_is_enlarged(small_model, size):
    """The preprocessing alone would make 64 × 192,000 pixels of 1 × 3,000; what comes out is the same."""
    picture = photo(5, *size)
    exact = small_model.preprocess(picture)
    assert (small_model.prepare(picture) - exact).abs().max() <= 1e-5
    seen = []
    small_model.preprocess, original = lambda image: seen.append(image.size) or original(image), small_model.preprocess
    try:
        small_model.prepare(picture)
    finally:
        small_model.preprocess = original
    assert max(seen[0]) <= 4 * min(seen[0])


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
        (torch.zeros(1, 3, 0, 64), "height and width are at least 1"),
        (torch.zeros(2, 3, 64, 0), "height and width are at least 1"),
        (torch.zeros(2, 3, 8, 8).index_fill(0, torch.tensor(1), float("nan")), "not a number"),
        (torch.full((1, 3, 8, 8), -float("inf")), "infinite"),
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
    with pytest.warns(
        UserWarning, match="reads 20 tokens, and 'a a a.* has 21: the end of the text is left out"
    ) as caught:
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
        clip.encode_texts("the " + " ".join(f"w{i}" for i in range(12)))


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
    for temperature in (1e-30, 2 * gates.SMALLEST):  # cosines divided by it are more than float32 holds
        frozen = clip.classify(PICTURES, labels, temperature=temperature)
        assert torch.equal(frozen, F.one_hot(cold.argmax(dim=1), 3).float())
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
