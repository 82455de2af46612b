"""train/clip.py: its data, augmentation, towers, losses and folder; and a short training of a tiny model."""

import itertools
import json
import math
import re
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from mmlesson import runtime, world
from mmlesson.clip import contrastive_loss, load_clip
from mmlesson.models import pocket_forms
from mmlesson.models.pocket_forms import FORMS, new_clip
from mmlesson.train import clip as recipes
from mmlesson.train.clip import JudgeRecipe, Recipe, Training
from mmlesson.train.run import train

REAL = FORMS["pocket-clip"]
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "image_size": 64},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
SHORT = Recipe(steps=4, batch_size=16, workers=0, curriculum=(20, 40))  # meets every stage in four steps


@pytest.fixture(autouse=True, scope="module")
def tiny():
    """The tiny model instead of the real one, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FORMS, "pocket-clip", TINY)
        yield
    torch.set_num_threads(threads)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def trained() -> Training:
    """A training that nothing interrupted; `.steps` are its steps."""
    training = Training(SHORT, "cpu")
    training.steps = list(train(training))
    return training


def test_every_part_is_trained(trained):
    for step in trained.steps:
        assert 0 < step.loss < 10 and 1 <= step.details["logit_scale"] <= 100
    fresh, weights = new_clip(SHORT.seed).state_dict(), trained.model.state_dict()
    assert [name for name in fresh if torch.equal(fresh[name], weights[name]) and fresh[name].numel() > 1] == []
    assert all(value.isfinite().all() for value in weights.values())


def test_stopped_and_resumed_equals_uninterrupted(trained, tmp_path):
    going = train(Training(replace(SHORT, evaluate_every=0.0), "cpu"), tmp_path)
    first = next(going)
    going.close()
    assert 0 <= first.heldout["retrieval_at_1"] <= 1, "the thermometer changes nothing"
    resumed = Training(SHORT, "cpu")
    losses = [first.loss, *(step.loss for step in train(resumed, tmp_path))]
    assert losses == [step.loss for step in trained.steps]
    assert same(resumed.model.state_dict(), trained.model.state_dict())


def test_loss_goes_down(monkeypatch):
    first = next(recipes.caption_batches(SHORT))  # always the same pairs, differently augmented
    monkeypatch.setattr(recipes, "caption_batches", lambda recipe, step: itertools.repeat(first))
    losses = [step.loss for step in train(Training(replace(SHORT, steps=15, learning_rate=3e-3), "cpu"))]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.5
    chance = (math.log(len(first[0])) + math.log(len(first[0]) + len(first[2]))) / 2
    assert np.mean(losses[-3:]) < chance


def test_a_fresh_clip_depends_on_its_seed_alone():
    before = torch.random.get_rng_state()
    first = new_clip(3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)  # nobody else's random numbers change
    torch.rand(5)
    assert same(new_clip(3).state_dict(), first)
    assert not same(new_clip(4).state_dict(), first)
    with pytest.raises(ValueError, match="no form 'other'"):
        new_clip(0, "other")


# --------------------------------------------------------------------------------------------- data


def test_batches_are_training_scenes_and_the_same_with_workers():
    data = world.dataset(48, "train", SHORT.seed, 64, curriculum=SHORT.curriculum)
    tokenizer = open_clip.SimpleTokenizer(context_length=32)
    alone = list(itertools.islice(recipes.caption_batches(SHORT), 3))
    for number, (pixels, tokens, wrong) in enumerate(alone):
        items = [data[index] for index in range(16 * number, 16 * number + 16)]
        assert pixels.dtype == torch.uint8 and torch.equal(pixels, torch.stack([item[0] for item in items]))
        assert torch.equal(tokens, tokenizer([item[1] for item in items]))
        assert torch.equal(wrong, tokenizer([item[2] for item in items if item[2]]))
        assert 0 < len(wrong) <= 16
    for workers in (1, 2):
        batches = recipes.caption_batches(
            replace(SHORT, workers=workers), first_step=1
        )  # the second batch, as after a resume
        for batch, other in zip(itertools.islice(batches, 2), alone[1:], strict=True):
            assert all(torch.equal(part, expected) for part, expected in zip(batch, other, strict=True))


def test_no_caption_is_too_long_for_the_model():
    tokenizer = open_clip.SimpleTokenizer()

    def length(text: str) -> int:
        return len(tokenizer.encode(text))

    names = [text for each in world.concepts() for text in (str(each), *map(world.with_article, each.aliases))]
    colours = [*world.BACKGROUNDS, *sum(world.BACKGROUND_ALIASES.values(), ())]
    longest, colour = sorted(names, key=length)[-2:], max(colours, key=length)
    words = {"a": longest[0], "A": longest[0], "b": longest[1], "B": longest[1], "bg": f"a {colour}", "BG": colour}
    lists = (
        world.ONE,
        world.LEFT,
        world.ABOVE,
        world.UNORDERED,
        world.UNSEEN_ONE,
        world.UNSEEN_LEFT,
        world.UNSEEN_ABOVE,
    )
    for template in itertools.chain(*lists):
        assert length(template.format(**words)) + 2 <= REAL["text_cfg"]["context_length"], (
            template
        )  # with start and end


def test_vocabulary_covers_what_training_says():
    words = recipes.vocabulary()
    assert words == sorted(set(words)) and all(word == word.lower() for word in words)
    rng = np.random.default_rng(0)
    texts = [text for scene in world.sample(500, seed=2) for text in scene.phrase(rng)]
    texts += [text for scene in world.sample(50, "heldout", seed=3) for text in scene.captions(unseen=True)]
    for text in texts:
        assert set(re.findall(r"[a-z0-9]+(?:'[a-z]+)?", text.lower())) <= set(words), text
    for each in world.concepts():
        for name in (each.name, *each.aliases):
            assert set(re.findall(r"[^\W_]+(?:'[^\W_]+)?", name.lower())) <= set(words)
    assert not {"zeppelin", "bg", "photograph", ""} & set(words)


# ------------------------------------------------------------------------------------- augmentation


def pictures(n: int = 64) -> torch.Tensor:
    """Red on the left, blue on the right, white above, black below."""
    pixels = torch.zeros(n, 3, 64, 64)
    pixels[:, 0, :, :32] = pixels[:, 2, :, 32:] = 0.6
    pixels[:, :, :20] += 0.4
    return pixels


def test_augment_keeps_shape_and_range():
    pixels = pictures()
    before = pixels.clone()
    changed = recipes.augment(pixels, runtime.generator(0))
    assert changed.shape == pixels.shape and changed.dtype == torch.float32
    assert changed.min() >= 0 and changed.max() <= 1 and changed.isfinite().all()
    assert torch.equal(pixels, before)
    assert ((changed - pixels).abs().mean((1, 2, 3)) > 0.01).all()  # something happens to each …
    assert len({picture.numpy().tobytes() for picture in changed}) == len(pixels)  # … and not the same
    assert ((changed - pixels).abs().mean((1, 2, 3)) < 0.25).all()


def test_augment_is_decided_by_its_generator():
    first = recipes.augment(pictures(), runtime.generator(7))
    torch.rand(3)
    assert torch.equal(recipes.augment(pictures(), runtime.generator(7)), first)
    assert not torch.equal(recipes.augment(pictures(), runtime.generator(8)), first)


def test_augment_mirrors_nothing():
    changed = recipes.augment(pictures(512), runtime.generator(1))
    left, right = changed[:, :, 30:, :24].mean((2, 3)), changed[:, :, 30:, 40:].mean((2, 3))
    assert (left[:, 0] > right[:, 0] + 0.3).all() and (right[:, 2] > left[:, 2] + 0.3).all()
    assert (changed[:, :, :12].mean((1, 2, 3)) > changed[:, :, 40:].mean((1, 2, 3)) + 0.2).all()


def test_augment_leaves_things_where_they_are():
    pixels = torch.zeros(256, 3, 64, 64)
    pixels[:, :, 24:40, 24:40] = 1
    changed = recipes.augment(pixels, runtime.generator(2)).mean(1)
    bright = (changed > 0.5).float()
    place = torch.arange(64.0) + 0.5
    for axis in (1, 2):
        centre = (bright.sum(3 - axis) * place).sum(1) / bright.sum((1, 2)) / 64
        assert ((centre - 0.5).abs() < 0.06).all() and centre.std() > 0.01  # shifted, by a twentieth of the side
    share = bright.mean((1, 2)) / (16 / 64) ** 2
    assert 0.6 < share.min() < 0.9 < 1 < share.max() < 1.3  # smaller and larger


# -------------------------------------------------------------------------------- towers and losses


TEXTS = [
    "",
    "a",
    "cat",
    "a cat left of a red apple on a blue background",
    "there is a hear-no-evil monkey, and to the right is a see-no-evil monkey, on a cyan background",
    "on " * 60,  # cut off at the context length
    "a picture of a dog",
]


@pytest.mark.parametrize("model", ["tiny", "pocket"])
def test_trimmed_texts_are_encoded_as_by_the_model(model, monkeypatch):
    monkeypatch.setitem(FORMS, "pocket-clip", TINY if model == "tiny" else REAL)
    model = new_clip(
        0
    ).double()  # in float32, sums in another order differ by more than a fault might, on some machines
    tokens = open_clip.SimpleTokenizer(context_length=32)(TEXTS)
    reference = model.encode_text(tokens)
    for parts in (1, 3, 20):
        torch.testing.assert_close(recipes.encode_texts_trimmed(model, tokens, parts), reference, rtol=0, atol=1e-9)
    torch.testing.assert_close(recipes.encode_texts_trimmed(model, tokens[3:4]), reference[3:4], rtol=0, atol=1e-9)

    weight = model.text_projection
    (expected,) = torch.autograd.grad(reference.square().sum(), weight)
    (found,) = torch.autograd.grad(recipes.encode_texts_trimmed(model, tokens).square().sum(), weight)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def unit(n: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, 8, generator=runtime.generator(seed)), dim=-1)


def test_loss_without_wrong_captions_is_open_clips():
    images, texts, scale = unit(6, 0), unit(6, 1), torch.tensor(13.0)
    ours = recipes.contrastive_loss_with_wrong(images, texts, texts[:0], scale)
    torch.testing.assert_close(ours, open_clip.ClipLoss()(images, texts, scale), rtol=0, atol=1e-6)
    torch.testing.assert_close(ours, contrastive_loss(images, texts, scale), rtol=0, atol=1e-6)


def test_loss_with_wrong_captions_by_hand():
    images, texts, wrong, scale = unit(5, 0), unit(5, 1), unit(3, 2), 9.0
    picture, caption = [], []
    for i in range(5):
        choices = [math.exp(scale * float(images[i].double() @ text.double())) for text in (*texts, *wrong)]
        picture.append(-math.log(choices[i] / sum(choices)))
        choices = [math.exp(scale * float(image.double() @ texts[i].double())) for image in images]
        caption.append(
            -math.log(choices[i] / sum(choices))
        )  # a caption chooses among the pictures: no wrong ones there
    expected = (sum(picture) / 5 + sum(caption) / 5) / 2
    found = recipes.contrastive_loss_with_wrong(images, texts, wrong, torch.tensor(scale))
    assert found.item() == pytest.approx(expected, abs=1e-6)
    assert found > recipes.contrastive_loss_with_wrong(images, texts, wrong[:0], torch.tensor(scale))


def test_weight_decay_spares_gains_biases_and_embeddings():
    training = Training(SHORT, "cpu")
    model = training.model
    decayed, plain = training.optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (SHORT.weight_decay, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    spared = {names[id(parameter)] for parameter in plain["params"]}
    assert {
        "logit_scale",
        "positional_embedding",
        "token_embedding.weight",
        "ln_final.weight",
        "visual.bn1.bias",
    } <= spared
    assert len(decayed["params"]) + len(plain["params"]) == len(names)
    assert {"text_projection", "visual.conv1.weight"} <= set(names.values()) - spared


# ------------------------------------------------------------------------------------ the model folder


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    trained.save(folder)
    model = new_clip(0)
    model.load_state_dict(trained.model.state_dict())
    return model.eval(), folder


def test_saved_model_is_a_folder_of_open_clip(saved):
    _, folder = saved
    files = {"open_clip_model.safetensors", "open_clip_config.json", "vocabulary.json"}
    assert {path.name for path in folder.iterdir()} == files
    config = {"model_cfg": TINY, "preprocess_cfg": pocket_forms.PREPROCESS}
    assert json.loads((folder / "open_clip_config.json").read_text()) == config
    assert json.loads((folder / "vocabulary.json").read_text()) == {"words": recipes.vocabulary()}
    tensors = load_file(folder / "open_clip_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float16}


@torch.no_grad()
def test_saved_model_loads_in_open_clip_and_here(saved):
    trained, folder = saved
    scenes = world.sample(8, "heldout", seed=5)
    images, captions = [scene.render(64) for scene in scenes], [scene.caption for scene in scenes]

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}", require_pretrained=True)
    model.eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(captions)
    assert tokens.shape == (8, 32)
    pixels = torch.stack([preprocess(image) for image in images])
    plain = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 for image in images])
    torch.testing.assert_close(pixels, (plain - 0.5) / 0.5)  # as in training: 64 pixels stay 64 pixels
    for mine, theirs in (
        (trained.encode_image(pixels), model.encode_image(pixels)),
        (trained.encode_text(tokens), model.encode_text(tokens)),
    ):
        assert F.cosine_similarity(mine, theirs).min() > 0.9999  # fp16

    ours = load_clip(f"local-dir:{folder}", "cpu")
    torch.testing.assert_close(
        ours.encode_images(images), F.normalize(model.encode_image(pixels), dim=-1), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(
        ours.encode_texts(captions), F.normalize(model.encode_text(tokens), dim=-1), rtol=0, atol=1e-5
    )
    assert ours.unknown_words(captions) == [] and ours.unknown_words("a zeppelin") == ["zeppelin"]


def test_pocket_model_is_small_enough(monkeypatch):
    monkeypatch.setitem(FORMS, "pocket-clip", REAL)
    model = new_clip(0)
    assert 2 * sum(value.numel() for value in model.state_dict().values()) < 40e6  # bytes, in fp16
    images = torch.from_numpy(np.array(Image.new("RGB", (64, 64)))).permute(2, 0, 1)[None] / 255
    assert model.eval().encode_image(images).shape == (1, REAL["embed_dim"])


def test_the_judge_is_another_model_with_another_seed():
    judge, pocket = JudgeRecipe(steps=1), Recipe(steps=1)
    assert (judge.model, judge.seed) == ("judge-clip", 1) and (pocket.model, pocket.seed) == ("pocket-clip", 0)
    assert JudgeRecipe(steps=1, seed=0).seed == 0
    assert Training(judge, "cpu").name == "judge-clip"
    towers = [type(new_clip(1, name).visual).__name__ for name in ("pocket-clip", "judge-clip")]
    assert towers[0] != towers[1]
    size = sum(parameter.numel() for parameter in new_clip(1, "judge-clip").parameters())
    assert 2 * size <= 25e6, "two bytes a weight: it has to fit into 25 MB"
    with pytest.raises(ValueError, match="no recipe for 'other'"):
        Recipe(steps=1, model="other")
