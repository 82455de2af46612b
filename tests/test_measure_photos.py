"""What `mmlesson eval photos` measures, on a handful of drawn pictures and with CLIPs that know or do not know."""

import hashlib
import importlib
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mmlesson import cli, load_clip
from mmlesson.measure import bars, parts, photos, stored
from mmlesson.measure.page import page

FROZEN = "436dc633763308c2"  # of the list of everyday photographs and labels
COUNTS = ("everyday", "unseen_names", "cat_dog_person_pictures")
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}


class ColourClip:
    """Knows colours: a picture's mean colour, and the colour that a text names. `blind`: everything looks alike."""

    name, image_size, vocabulary, familiarity = "colours", 32, None, None

    def __init__(self, blind=False):
        self.blind = blind

    def encode_images(self, images):
        means = [
            torch.tensor(Image.open(image).convert("RGB").resize((1, 1)).getpixel((0, 0))).float() for image in images
        ]
        return F.normalize(torch.ones(len(means), 3) if self.blind else torch.stack(means), dim=-1)

    def encode_texts(self, texts):
        named = [next((COLOURS[word] for word in text.lower().split() if word in COLOURS), (1, 1, 1)) for text in texts]
        return F.normalize(torch.tensor(named).float(), dim=-1)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    rows = ["file\tsplit\tcaption", "red.png\ttrain\ta red thing"]
    for name, colour in COLOURS.items():
        Image.new("RGB", (20, 20), colour).save(tmp_path / "pictures" / f"{name}.png")
        rows += [f"{name}.png\ttest\tA {name} dog", f"{name}.png\ttest\tThe {name} puppy"]
        (tmp_path / "caltech" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (30, 20), colour).save(tmp_path / "caltech" / name / f"{number}.png")
    (tmp_path / "captions.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_a_clip_that_knows_finds_everything_and_a_blind_one_does_not(folder, monkeypatch):
    monkeypatch.setattr(photos, "class_names", lambda: [["green snake"]])
    figures = photos.evaluate_photos(ColourClip(), folder)
    assert figures["caption_r1"] == figures["pictures_r10"] == figures["names_top1"] == 1
    assert (figures["unseen_names"], figures["unseen_names_top1"]) == (1, 1)  # blue: no caption and no class has it
    assert figures["cat_dog_person_pictures"] == 3
    others = {name for name in bars.FIGURES["eval photos"] if name.startswith(("nothing_", "unfamiliar_"))}
    assert set(figures) == set(bars.FIGURES["eval photos"]) - others
    blind = photos.evaluate_photos(ColourClip(blind=True), folder)
    assert blind["caption_r1"] == blind["everyday"] == 0 and blind["names_top1"] < 1, "all alike is not found"


def test_other_files_among_the_named_folders_are_left_out(folder):
    (folder / "caltech" / "README.md").touch()
    (folder / "caltech" / "red" / "notes.txt").touch()
    (folder / "caltech" / "violet").mkdir()  # without a picture: no name to choose from
    figures = photos.named_folders(ColourClip(), folder / "caltech", [])
    assert figures == {"names_top1": 1, "names_top5": 1, "unseen_names": 3, "unseen_names_top1": 1}
    with pytest.raises(ValueError, match="no folder with pictures"):
        photos.named_folders(ColourClip(), folder / "pictures", [])


def test_without_named_folders_the_other_figures_are_measured(folder, tmp_path):
    (folder / "caltech").rename(tmp_path / "elsewhere")
    assert (
        {"caption_r1", "everyday"}
        <= set(photos.evaluate_photos(ColourClip(), folder))
        <= {name for name in bars.FIGURES["eval photos"] if "names" not in name}
    )


@pytest.mark.parametrize(
    ("captions", "who"),
    [
        (("A dog runs.", "Two dogs in the snow"), "a dog"),
        (("A dog runs.", "An animal in the snow"), ""),
        (("A man with his dog", "A dog"), ""),
        (("A boy jumps", "A child in the air"), "a person"),
        (("A boy jumps", "Somebody in the air"), ""),
        (("A woman on a horse", "A woman rides"), ""),
        (("A kitten sleeps", "The CAT is asleep"), "a cat"),
    ],
)
def test_who_a_picture_shows_is_read_from_its_captions(captions, who):
    assert photos.subject(captions) == who


def test_everyday_photographs_are_there_and_their_labels_differ():
    labels = [photo.label for photo in photos.EVERYDAY] + list(photos.EVERYDAY_DISTRACTORS)
    assert len(photos.EVERYDAY) == 18 and len(set(labels)) == 30
    said = json.dumps([[photo.package, photo.file, photo.label] for photo in photos.EVERYDAY] + labels[18:])
    assert hashlib.sha256(said.encode()).hexdigest()[:16] == FROZEN, "the list was frozen before the first training"
    for photo in photos.EVERYDAY:
        assert (Path(importlib.import_module(photo.package).__file__).parent / photo.file).is_file()


def test_the_command_prints_a_table_and_ends_with_one_flat_object_of_numbers(folder, monkeypatch, capsys):
    monkeypatch.setattr(photos, "untrained_photo_clip", lambda: ColourClip(blind=True))
    asked = []
    monkeypatch.setattr(photos, "load_clip", lambda name: asked.append(name) or ColourClip())
    assert cli.main(["eval", "photos", "--data", str(folder), "--json"]) == 0
    printed = capsys.readouterr().out.strip().splitlines()
    numbers = json.loads(printed[-1])
    assert all(isinstance(value, (int, float)) for value in numbers.values())
    with_bars = [name for name in bars.bars("eval photos") if not name.startswith(("nothing_", "unfamiliar_"))]
    assert all(f"{kind}_{name}" in numbers for kind in ("untrained", "pocket") for name in with_bars)
    assert any(line.startswith("| `names_top1`") for line in printed) and "a cat" in printed[-2]
    assert asked == ["photo-clip", "pocket-clip"]


def test_a_model_that_is_not_there_is_a_sentence(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["eval", "photos", "--data", str(folder), "--model", "local-dir:build/photo-clip"]) == 1
    assert "There is no folder build/photo-clip" in capsys.readouterr().err


def test_a_theme_that_was_taken_out_is_not_found_and_one_that_is_there_is(folder, monkeypatch):
    pictures = photos.read_captions(folder, "test")
    monkeypatch.setattr(photos, "sentences", lambda clip: ["a green thing", "a blue thing", *["grey"] * 18])
    monkeypatch.setattr(photos, "THEMES", {"red": ("red", ["a red dog"]), "violet": ("violet", ["a violet dog"])})
    assert photos.nothing_fits(ColourClip(), pictures) == {"nothing_false_hits": 0, "nothing_misses": 0}
    monkeypatch.setattr(photos, "THEMES", {"red": ("red", ["a green dog"])})  # which is still there without the theme
    assert photos.nothing_fits(ColourClip(), pictures)["nothing_false_hits"] == 1
    monkeypatch.setattr(photos, "THEMES", {"violet": ("violet", ["a violet dog"])})
    assert photos.nothing_fits(ColourClip(), pictures) == {}


def test_both_clips_are_asked_which_pictures_they_know(folder, monkeypatch):
    class Kind(ColourClip):
        familiarity = "some"

        def __init__(self, own):
            self.own = own

        def familiar(self, images):
            return torch.tensor([float(isinstance(image, Image.Image) == (self.own == "scenes")) for image in images])

    monkeypatch.setattr(photos, "load_clip", lambda name: Kind("scenes"))
    found = photos.kinds(Kind("photographs"), folder, n_scenes=2)
    right = {"unfamiliar_own": 0, "unfamiliar_other": 1, "unfamiliar_named": 0}
    assert found == right | {"unfamiliar_own_of_pocket": 0, "unfamiliar_other_of_pocket": 1}
    assert photos.kinds(ColourClip(), folder) == {}


def test_figures_of_a_reader_s_own_photographs_are_not_stored(folder, capsys):
    assert "eval photos" in parts.UNSTORED and not set(parts.UNSTORED) & set(parts.PARTS)
    assert "eval photos" not in page() and not stored.path_of("eval photos").exists()
    with pytest.raises(SystemExit):
        cli.main(["eval", "photos", "--data", str(folder), "--write"])
    assert "unrecognized arguments: --write" in capsys.readouterr().err


def test_a_fresh_photo_clip_is_at_chance():
    ranks = photos.everyday_ranks(photos.untrained_photo_clip())
    assert not bars.known("eval photos", "everyday").bar.met(sum(rank == 1 for rank in ranks.values()))


def test_the_pocket_clip_takes_part(folder):
    with pytest.warns(UserWarning, match="never met"):
        figures = photos.evaluate_photos(load_clip("pocket-clip"), folder)
    assert all(0 <= value <= 1 for name, value in figures.items() if name not in COUNTS)
