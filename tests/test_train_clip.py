"""train/clip.py: the recipe, on a tiny model: it learns, stops, resumes and saves without losing anything."""

import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

from mmlesson import gates, runtime, world
from mmlesson.clip import contrastive_loss, load_clip
from mmlesson.train import clip as recipes
from mmlesson.train import run as checkpoint
from mmlesson.train.clip import Recipe, Step, train

REAL = recipes.MODEL
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
        patch.setitem(recipes.MODELS, "pocket-clip", TINY)
        yield
    torch.set_num_threads(threads)


class Run(SimpleNamespace):
    steps: list[Step]
    weights: dict[str, torch.Tensor]  # batch norm's running statistics among them


def run(recipe: Recipe, state: Path | None = None, stop: int | None = None) -> Run:
    """Train until the end, or leave after `stop` steps."""
    steps, training = [], train(recipe, state, "cpu")
    for step, model in training:
        steps.append(step)
        if len(steps) == stop:
            break
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    training.close()
    return Run(steps=steps, weights=weights)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    """A run that nothing interrupted; `.state` is its folder."""
    state = tmp_path_factory.mktemp("whole")
    done = run(SHORT, state)
    done.state = state
    return done


# ------------------------------------------------------------------------------------------ running


def test_steps_tell_what_happened(whole):
    assert [step.step for step in whole.steps] == [1, 2, 3, 4]
    assert [step.pairs for step in whole.steps] == [16, 32, 48, 64]
    assert [step.learning_rate for step in whole.steps] == [
        checkpoint.rate_at(share, SHORT) for share in (0, 0.25, 0.5, 0.75)
    ]
    seconds = [step.seconds for step in whole.steps]
    assert 0 < seconds[0] and seconds == sorted(seconds)
    for step in whole.steps:
        assert 0 < step.loss < 10 and 1 <= step.logit_scale <= 100 and step.retrieval_r1 is None
    logged = [json.loads(line) for line in (whole.state / "log.jsonl").read_text().splitlines()]
    assert [Step(**line) for line in logged] == whole.steps


def test_every_part_is_trained(whole):
    fresh = recipes.new_model(SHORT.seed).state_dict()
    assert [name for name in fresh if torch.equal(fresh[name], whole.weights[name]) and fresh[name].numel() > 1] == []
    assert all(value.isfinite().all() for value in whole.weights.values())


def test_same_seed_same_weights(whole):
    again = run(SHORT)  # without a state folder
    assert same(again.weights, whole.weights)
    assert [step.loss for step in again.steps] == [step.loss for step in whole.steps]
    other = run(replace(SHORT, seed=1), stop=1)
    assert other.steps[0].loss != whole.steps[0].loss


def test_new_model_depends_on_its_seed_alone():
    before = torch.random.get_rng_state()
    first = recipes.new_model(3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)  # nobody else's random numbers change
    torch.rand(5)
    assert same(recipes.new_model(3).state_dict(), first)
    assert not same(recipes.new_model(4).state_dict(), first)


def test_loss_goes_down(monkeypatch):
    first = next(recipes.scene_batches(SHORT))  # always the same pairs, differently augmented
    monkeypatch.setattr(recipes, "scene_batches", lambda recipe, step: itertools.repeat(first))
    losses = [step.loss for step in run(replace(SHORT, steps=15, learning_rate=3e-3)).steps]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.5
    assert (
        np.mean(losses[-3:]) < (math.log(len(first[0])) + math.log(len(first[0]) + len(first[2]))) / 2
    )  # better than chance


def test_a_training_by_the_clock_ends_with_it():
    assert len(run(replace(SHORT, steps=None, minutes=1e-6)).steps) == 1


def test_evaluation_on_the_way_changes_nothing(whole, tmp_path):
    measured = run(replace(SHORT, evaluate_every=0.0), tmp_path)
    assert all(0 <= step.retrieval_r1 <= 1 for step in measured.steps)
    assert same(measured.weights, whole.weights)
    assert "retrieval_r1" in (tmp_path / "log.jsonl").read_text()


def test_a_training_is_bounded_by_one_thing():
    for bounds in ({}, {"minutes": 1, "steps": 1}):
        with pytest.raises(ValueError, match="bounded by minutes or by steps: give one"):
            Recipe(**bounds)


# ------------------------------------------------------------------------------- stopping, resuming


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_stopped_and_resumed_equals_uninterrupted(whole, tmp_path, how):
    state = tmp_path / "state"
    if how == "closed":
        first = run(SHORT, state, stop=2)
    else:  # nothing is written at the end: what counts is the last checkpoint
        training = train(replace(SHORT, checkpoint_every=0.0), tmp_path / "first", "cpu")
        first = Run(steps=[next(training)[0] for _ in range(2)])
        shutil.copytree(tmp_path / "first", state)
        training.close()
    rest = run(replace(SHORT, checkpoint_every=1e9, evaluate_every=1e9), state)  # these may change on the way
    assert [step.step for step in first.steps + rest.steps] == [1, 2, 3, 4]
    for step, other in zip(first.steps + rest.steps, whole.steps, strict=True):
        assert (step.loss, step.learning_rate, step.logit_scale, step.pairs) == (
            other.loss,
            other.learning_rate,
            other.logit_scale,
            other.pairs,
        )
    assert rest.steps[0].seconds > first.steps[-1].seconds  # the clock goes on, too
    assert same(rest.weights, whole.weights)
    # and so do the moments of the optimizer and batch norm's running statistics
    stored = load_file(state / "state.safetensors")
    assert same(stored, load_file(whole.state / "state.safetensors"))
    assert {name.split(".")[-1] for name in stored if name.startswith("optimizer.")} == {
        "step",
        "exp_avg",
        "exp_avg_sq",
    }
    assert any(name.endswith("running_var") for name in stored)
    assert [json.loads(line)["step"] for line in (state / "log.jsonl").read_text().splitlines()] == [1, 2, 3, 4]


def test_a_finished_training_has_no_more_steps(whole):
    assert list(train(SHORT, whole.state, "cpu")) == []
    assert same(recipes._finished(SHORT, whole.state).state_dict(), whole.weights)


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch_size": 8}, {"learning_rate": 0.5}, {"curriculum": (20, 41)}])
def test_a_checkpoint_of_another_recipe_is_refused(whole, change):
    before = (whole.state / "state.safetensors").read_bytes()
    (what,) = change
    with pytest.raises(
        ValueError, match=rf"state.safetensors is a checkpoint of another recipe \({what} differs\).*--fresh"
    ):
        next(train(replace(SHORT, **change), whole.state, "cpu"))
    assert (whole.state / "state.safetensors").read_bytes() == before


def test_a_checkpoint_of_another_model_is_refused(whole, monkeypatch):
    monkeypatch.setitem(recipes.MODELS, "pocket-clip", TINY | {"embed_dim": 8})
    with pytest.raises(ValueError, match=r"another recipe \(model differs\)"):
        next(train(SHORT, whole.state, "cpu"))


@pytest.mark.parametrize("damage", ["empty", "half", "foreign"])
def test_a_damaged_checkpoint_is_one_sentence(whole, tmp_path, damage):
    file = tmp_path / "state.safetensors"
    content = (whole.state / "state.safetensors").read_bytes()
    if damage == "foreign":
        save_file({"weight": torch.zeros(2)}, file)
    else:
        file.write_bytes(content[: {"empty": 0, "half": len(content) // 2}[damage]])
    before = file.read_bytes()
    with pytest.raises((ValueError, gates.AssetError), match=r"state\.safetensors.*--fresh"):
        next(train(SHORT, tmp_path, "cpu"))
    assert file.read_bytes() == before


# ------------------------------------------------------------------------------------- the command


@pytest.fixture
def command(tmp_path, monkeypatch):
    """`mmlesson train clip` with the short recipe: returns the exit status."""
    monkeypatch.setattr(runtime, "set_threads", lambda: 1)
    monkeypatch.setattr(recipes, "Recipe", lambda **given: replace(SHORT, **{**given, "workers": 0}))

    def call(**options) -> int:
        told = {"minutes": 120.0, "steps": 4, "seed": 0, "workers": 0, "device": "cpu", "fresh": False}
        return recipes.main(
            SimpleNamespace(**{**told, "state": tmp_path / "state", "out": tmp_path / "out", **options})
        )

    return call


def test_command_interrupted_says_so_and_goes_on(command, whole, tmp_path, monkeypatch, capsys):
    augment, calls = recipes.augment, []

    def interrupted(pixels, generator):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return augment(pixels, generator)

    monkeypatch.setattr(recipes, "augment", interrupted)
    with pytest.raises(KeyboardInterrupt) as stop:
        command()
    assert str(stop.value).startswith(f"{tmp_path / 'state' / 'state.safetensors'} holds the work so far")
    assert not (tmp_path / "out").exists()

    monkeypatch.setattr(recipes, "augment", augment)
    assert command() == 0
    output = capsys.readouterr().out
    assert re.search(r"step +3 .*pairs/s +loss \d\.\d{3}", output) and "mmlesson eval clip --model local-dir:" in output
    written = (tmp_path / "out" / "open_clip_model.safetensors").read_bytes()
    saved = load_file(tmp_path / "out" / "open_clip_model.safetensors")
    assert all(torch.equal(value, whole.weights[name].to(value.dtype)) for name, value in saved.items())

    shutil.rmtree(tmp_path / "out")  # a third time: the training has ended, the model is written again
    assert command() == 0
    assert (tmp_path / "out" / "open_clip_model.safetensors").read_bytes() == written


def test_command_starts_anew(command, tmp_path, capsys):
    with pytest.raises(ValueError, match="seed differs"):
        command(steps=1), command(seed=5, steps=1)
    assert command(seed=5, steps=1, fresh=True) == 0
    assert "step      1" in capsys.readouterr().out
    assert len((tmp_path / "state" / "log.jsonl").read_text().splitlines()) == 1


CTRL_C = f"""
import functools, sys
from mmlesson import cli
from mmlesson.train import clip
clip.MODELS["pocket-clip"] = {TINY!r}
clip.Recipe = functools.partial(clip.Recipe, batch_size=16, curriculum=(20, 40))
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of a terminal")
def test_ctrl_c_in_a_terminal(tmp_path):
    state = tmp_path / "state"
    command = [
        sys.executable,
        "-c",
        CTRL_C,
        "train",
        "clip",
        "--steps",
        "1000000",
        "--state",
        str(state),
        "--device",
        "cpu",
    ]
    process = subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        line = process.stdout.readline()  # of the first step
        assert "step" in line, process.communicate()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: also to the worker that renders scenes
        output, errors = process.communicate(timeout=240)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 130
    assert (
        "stopped. " in errors
        and "state.safetensors holds the work so far; the same command goes on from there." in errors
    )
    assert "Traceback" not in errors
    logged = [json.loads(line) for line in (state / "log.jsonl").read_text().splitlines()]
    recipe = Recipe(steps=logged[-1]["step"] + 1, batch_size=16, workers=0, curriculum=(20, 40))
    assert [step.step for step in run(recipe, state).steps] == [logged[-1]["step"] + 1]


# --------------------------------------------------------------------------------------------- data


def test_batches_are_training_scenes_and_the_same_with_workers():
    data = world.dataset(48, "train", SHORT.seed, 64, curriculum=SHORT.curriculum)
    tokenizer = open_clip.SimpleTokenizer(context_length=32)
    alone = list(itertools.islice(recipes.scene_batches(SHORT), 3))
    for number, (pixels, tokens, wrong) in enumerate(alone):
        items = [data[index] for index in range(16 * number, 16 * number + 16)]
        assert pixels.dtype == torch.uint8 and torch.equal(pixels, torch.stack([item[0] for item in items]))
        assert torch.equal(tokens, tokenizer([item[1] for item in items]))
        assert torch.equal(wrong, tokenizer([item[2] for item in items if item[2]]))
        assert 0 < len(wrong) <= 16
    for workers in (1, 2):
        batches = recipes.scene_batches(
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
    monkeypatch.setitem(recipes.MODELS, "pocket-clip", TINY if model == "tiny" else REAL)
    model = recipes.new_model(0)
    tokens = open_clip.SimpleTokenizer(context_length=32)(TEXTS)
    reference = model.encode_text(tokens)
    for parts in (1, 3, 20):
        torch.testing.assert_close(recipes.encode_texts_trimmed(model, tokens, parts), reference, rtol=0, atol=1e-5)
    torch.testing.assert_close(recipes.encode_texts_trimmed(model, tokens[3:4]), reference[3:4], rtol=0, atol=1e-5)

    weight = model.text_projection
    (expected,) = torch.autograd.grad(reference.square().sum(), weight)
    (found,) = torch.autograd.grad(recipes.encode_texts_trimmed(model, tokens).square().sum(), weight)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


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


def test_learning_rate_rises_and_falls():
    recipe = Recipe(steps=1000, learning_rate=2.0, warmup=0.1)
    rates = np.array([checkpoint.rate_at(step / 1000, recipe) for step in range(1001)])
    assert (rates[:1000] > 0).all() and rates.max() == pytest.approx(2.0) and rates.argmax() == 100
    assert (np.diff(rates[:101]) >= 0).all() and rates[0] < 0.05 and rates[50] == pytest.approx(1.0)
    assert (np.diff(rates[100:]) < 0).all() and rates[550] == pytest.approx(1.0)  # half way down
    assert rates[1000] == pytest.approx(0, abs=1e-12) == checkpoint.rate_at(1.7, recipe)
    assert checkpoint.rate_at(0, replace(recipe, warmup=0.0)) == pytest.approx(2.0)


def test_weight_decay_spares_gains_biases_and_embeddings():
    model = recipes.new_model(0)
    decayed, plain = recipes.optimizer_for(model, SHORT).param_groups
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
def saved(whole, tmp_path_factory):
    model = recipes.new_model(0)
    model.load_state_dict(whole.weights)
    folder = recipes.save_model(model, tmp_path_factory.mktemp("models") / "tiny-clip", card="# A tiny CLIP\n")
    return model.eval(), folder


def test_saved_model_is_a_folder_of_open_clip(saved):
    _, folder = saved
    files = {"open_clip_model.safetensors", "open_clip_config.json", "vocabulary.json", "README.md"}
    assert {path.name for path in folder.iterdir()} == files
    assert json.loads((folder / "open_clip_config.json").read_text()) == {
        "model_cfg": TINY,
        "preprocess_cfg": recipes.PREPROCESS,
    }
    assert json.loads((folder / "vocabulary.json").read_text()) == {"words": recipes.vocabulary()}
    assert (folder / "README.md").read_text() == "# A tiny CLIP\n"
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
    monkeypatch.setitem(recipes.MODELS, "pocket-clip", REAL)
    model = recipes.new_model(0)
    assert 2 * sum(value.numel() for value in model.state_dict().values()) < 40e6  # bytes, in fp16
    images = torch.from_numpy(np.array(Image.new("RGB", (64, 64)))).permute(2, 0, 1)[None] / 255
    assert model.eval().encode_image(images).shape == (1, REAL["embed_dim"])


def test_the_judge_is_another_model_with_another_seed():
    judge, pocket = recipes.recipe_for("judge-clip", steps=1), recipes.recipe_for("pocket-clip", steps=1)
    assert (judge.model, judge.seed) == ("judge-clip", 1) and (pocket.model, pocket.seed) == ("pocket-clip", 0)
    assert recipes.recipe_for("judge-clip", steps=1, seed=7).seed == 7
    towers = [type(recipes.new_model(1, name).visual).__name__ for name in ("pocket-clip", "judge-clip")]
    assert towers[0] != towers[1]
    size = sum(parameter.numel() for parameter in recipes.new_model(1, "judge-clip").parameters())
    assert 2 * size <= 25e6, "two bytes a weight: it has to fit into 25 MB"
    with pytest.raises(ValueError, match="no recipe for 'other'"):
        recipes.Recipe(steps=1, model="other")
