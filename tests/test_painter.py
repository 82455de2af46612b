"""painter.py: prompts, cutouts, the loss, paintings with and without a prior, on tiny models and the pocket CLIP."""

import io
import shutil

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from test_prior import SMALL
from test_vqgan import TINY

from mmlesson import load_clip, load_guide, painter, runtime, vqgan, world
from mmlesson.gates import AssetError
from mmlesson.painter import cutouts, guidance_loss, paint, parse_prompts
from mmlesson.pixels import ImageError
from mmlesson.prior import Prior, new_prior

CAT = "a cat on a blue background"
FEW = {"steps": 4, "cutouts": 2}


@pytest.fixture(scope="module")
def clip():
    return load_clip("pocket-clip")


@pytest.fixture(scope="module")
def model():
    return vqgan.new_vqgan(TINY).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def prior(model):
    return new_prior(model, SMALL).eval().requires_grad_(False)


# ------------------------------------------------------------------------------------------- prompts


@pytest.mark.parametrize(
    "prompts, found",
    [
        (CAT, [(CAT, 1)]),
        ("a cat:1 | blur:-0.5", [("a cat", 1), ("blur", -0.5)]),
        ("a cat : 2|a dog", [("a cat", 2), ("a dog", 1)]),
        ("title: a cat", [("title: a cat", 1)]),
        ("a cat:1e-1", [("a cat", 0.1)]),
        ([CAT, (-0.5, "a dog")], [(CAT, 1), ("a dog", -0.5)]),
        ((2, "a cat | a dog:0.5"), [("a cat", 2), ("a dog", 1)]),
        (" | a cat | ", [("a cat", 1)]),
    ],
)
def test_prompts_are_read(prompts, found):
    assert [(prompt.content, prompt.weight) for prompt in parse_prompts(prompts)] == [
        (text, pytest.approx(weight)) for text, weight in found
    ]


def test_a_picture_is_a_prompt():
    image = Image.new("RGB", (8, 8), "red")
    one, other = parse_prompts([image, (0.5, image)])
    assert one.content.tobytes() == other.content.tobytes() == image.tobytes()
    assert (one.weight, other.weight) == (1, 0.5)


RED = Image.new("RGB", (8, 8), "red")


@pytest.mark.parametrize(
    "prompts, names",
    [
        (RED, ["picture 1"]),
        ([RED, "a cat", (0.5, RED)], ["picture 1", "a cat", "picture 2"]),
        ("a cat:1 | a cat:0.5 | a dog | a cat", ["a cat", "a cat (2)", "a dog", "a cat (3)"]),
        ([RED, "picture 1"], ["picture 1'", "picture 1"]),
        ("a cat | a cat | a cat (2)", ["a cat", "a cat (2)'", "a cat (2)"]),
    ],
)
def test_every_prompt_has_a_name_of_its_own(prompts, names):
    assert [prompt.name for prompt in parse_prompts(prompts)] == names


@pytest.mark.parametrize("prompts", ["", "  ", "|", [], ["", " | "]])
def test_no_prompt_is_said(prompts):
    with pytest.raises(ValueError, match="there is no prompt"):
        parse_prompts(prompts)


@pytest.mark.parametrize(
    "prompts, said",
    [
        ("a cat:0", "other than 0"),
        ((0, "a cat"), "other than 0"),
        ("a cat:1e400", "number from"),
        ("a:-1", "also what to paint"),
        ("a cat | :0.5", "“:0.5” is a weight without a prompt"),
    ],
)
def test_weights_that_make_no_sense_are_said(prompts, said):
    with pytest.raises(ValueError, match=said):
        parse_prompts(prompts)


def test_a_broken_picture_is_said(tmp_path):
    with pytest.raises(ImageError):
        parse_prompts([io.BytesIO(b"no picture").getvalue()])


# ------------------------------------------------------------------------------------- cutouts and loss


def test_cutouts_are_pictures_that_keep_gradients():
    pixels = torch.rand(2, 3, 48, 48, requires_grad=True)
    cut = cutouts(pixels, 5, 32, runtime.generator(0), smallest=0.5)
    assert cut.shape == (10, 3, 32, 32) and cut.min() > -0.5 and cut.max() < 1.5
    cut.sum().backward()
    assert pixels.grad.abs().sum() > 0
    assert torch.equal(cut, cutouts(pixels, 5, 32, runtime.generator(0), smallest=0.5)), "one seed, one set of cutouts"


def test_whole_cutouts_without_jitter_are_the_picture():
    pixels = F.interpolate(torch.rand(1, 3, 4, 4), size=(32, 32), mode="bilinear")
    torch.testing.assert_close(
        cutouts(pixels, 3, 32, runtime.generator(0), smallest=1, jitter=0),
        pixels.expand(3, -1, -1, -1),
        atol=1e-5,
        rtol=0,
    )


def test_a_cutout_shows_a_part():
    pixels = torch.zeros(1, 3, 64, 64)
    pixels[:, :, :, 32:] = 1  # black left, white right
    means = cutouts(pixels, 200, 32, runtime.generator(0), smallest=0.3, jitter=0).mean((1, 2, 3))
    assert means.min() < 0.25 and means.max() > 0.75, "some are mostly black, some mostly white"


def test_the_loss_is_one_minus_the_weighted_cosine():
    features, texts = (F.normalize(torch.randn(n, 8, generator=runtime.generator(n)), dim=1) for n in (5, 2))
    weights = torch.tensor([1.0, -0.5])
    expected = torch.stack([1 - (f @ texts[0] - 0.5 * (f @ texts[1])) / 1.5 for f in features]).mean()
    torch.testing.assert_close(guidance_loss(features, texts, weights), expected)


# ------------------------------------------------------------------------------------------ paintings


@pytest.mark.parametrize("with_prior", [False, True])
def test_a_painting_is_watched_step_by_step(clip, model, prior, with_prior):
    painting = paint(CAT, clip, model, prior if with_prior else None, **FEW)
    assert painting.best is None and painting.steps == []
    indices = []
    for step in painting:
        indices.append(step.index)
        assert step.image.size == (32, 32) and step.image.mode == "RGB"
        assert step.codes.shape == (4, 4) and step.codes.dtype == torch.int64
        assert set(step.scores) == {CAT} and step.loss == pytest.approx(1 - step.scores[CAT], abs=1e-4)
    assert indices == [1, 2, 3, 4] == [step.index for step in painting.steps] and painting.best in painting.steps
    assert painting.finish() is painting.best, "finished once and for all"


@pytest.mark.parametrize("with_prior", [False, True])
def test_one_seed_one_picture(clip, model, prior, with_prior):
    first, again, other = (
        paint(CAT, clip, model, prior if with_prior else None, seed=seed, **FEW).finish() for seed in (1, 1, 2)
    )
    assert first.image.tobytes() == again.image.tobytes() != other.image.tobytes() and torch.equal(
        first.codes, again.codes
    )


def test_the_plain_loop_pleases_its_guide(clip):
    model = vqgan.load_vqgan()
    painting = paint(CAT, clip, model, prior=None, steps=15)
    best = painting.finish()
    assert best.scores[CAT] > painting.steps[0].scores[CAT] + 0.3


def test_the_last_picture_with_a_prior_is_that_of_its_codes(clip, model, prior):
    last = paint(CAT, clip, model, prior, **FEW).finish()
    assert last.index == 4 and model.decode(last.codes)[0].tobytes() == last.image.tobytes()


def test_the_best_of_the_plain_loop_is_the_highest(clip, model):
    painting = paint("a cat | a dog:-0.3", clip, model, prior=None, steps=8, cutouts=2, learning_rate=0.5)
    best = painting.finish()
    assert painting.score(best) == max(map(painting.score, painting.steps))
    assert painting.score(best) == pytest.approx((best.scores["a cat"] - 0.3 * best.scores["a dog"]) / 1.3)


def test_it_starts_from_a_picture_or_from_codes(clip, model, prior):
    red = Image.new("RGB", (32, 32), "red")
    codes = model.encode(red)[0]
    slow = {"learning_rate": 1e-6, **FEW}
    assert torch.equal(paint(CAT, clip, model, None, start=red, **slow).finish().codes, codes)
    assert torch.equal(paint(CAT, clip, model, None, start=codes, **slow).finish().codes, codes)
    kept = paint(CAT, clip, model, prior, start=red, keep=0.9, steps=1, cutouts=1, seed=3).finish()
    anew = paint(CAT, clip, model, prior, steps=1, cutouts=1, seed=3).finish()
    assert not torch.equal(kept.codes, anew.codes)


@pytest.mark.parametrize("start", [2 * [RED], torch.zeros(2, 4, 4, dtype=torch.int64)])
def test_more_than_one_start_is_said(clip, model, start):
    with pytest.raises(ValueError, match="one picture or one grid of codes, not from 2"):
        paint(CAT, clip, model, start=start)


def test_it_can_be_left(clip, model):
    painting = paint(CAT, clip, model, None, **FEW)
    next(painting)
    painting.close()
    assert list(painting) == [] and painting.best.index == 1


def test_several_clips_vote(clip, model, prior):
    alone, twice = (
        paint(CAT, voters, model, prior, jitter=0, smallest_cutout=1, **FEW).finish() for voters in (clip, [clip, clip])
    )
    assert twice.scores[CAT] == pytest.approx(alone.scores[CAT], abs=0.2) and twice.loss == pytest.approx(
        1 - twice.scores[CAT], abs=1e-4
    )


class Tower:
    """One image tower of a guide: its features are two colours of a cutout."""

    image_size = 16

    def __init__(self, channels: list[int]):
        self.channels = channels
        self.seen: list[torch.Tensor] = []

    def folded(self) -> "Tower":
        return self

    def encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        self.seen.append(pixels.detach())
        return F.normalize(pixels.mean((2, 3))[:, self.channels], dim=1)  # [n, 2]


class TwoTowers:
    """A CLIP with two image towers: the first sees red and green, the second green and blue."""

    device = torch.device("cpu")

    def __init__(self, features: tuple[float, float] = (1.0, 0.0)):
        self.towers = [Tower([0, 1]), Tower([1, 2])]
        self.features = features

    def each_tower(self) -> list[Tower]:
        return self.towers

    def encode_texts(self, texts) -> torch.Tensor:
        return torch.tensor([self.features]).expand(len(texts), -1)


def test_every_tower_looks_and_its_gradient_reaches_the_latents(model):
    """Each tower sees its share of the cutouts, and the latents move as the mean of what all towers say."""
    guide = TwoTowers()
    options = painter.PaintOptions(cutouts=2, jitter=0, smallest_cutout=1)
    latents = torch.randn(1, TINY.dim, 4, 4, generator=runtime.generator(0))
    expected = []
    for towers in (guide.towers, guide.towers[:1], guide.towers[1:]):
        given = latents.clone().requires_grad_()
        looker = painter.Guide(parse_prompts(CAT), [guide], options, runtime.generator(0))
        looker.towers = [pair for pair in looker.towers if pair[0] in towers]
        losses, cosines = looker.look(model.decode_latents(given))
        assert losses.shape == (1,) and cosines.shape == (1, 1)
        losses.sum().backward()
        assert given.grad.abs().sum() > 0
        expected.append(given.grad)
    both, first, second = expected
    assert not torch.allclose(first, second, rtol=1e-2)
    torch.testing.assert_close(both, (first + second) / 2)
    assert [[len(cut) for cut in tower.seen] for tower in guide.towers] == [[1, 1], [1, 1]], "2 cutouts: one each"


def test_every_step_of_a_painting_asks_every_tower(model, prior):
    for way in (None, prior):
        guide = TwoTowers()
        paint(CAT, [guide], model, way, steps=3, sketches=1).finish()
        assert [len(tower.seen) for tower in guide.towers] == [3, 3]


def test_a_tower_compares_with_the_texts_of_its_own_clip():
    """Two CLIPs of two towers each: four looks, two with the features of each CLIP."""
    one, other = TwoTowers((1.0, 0.0)), TwoTowers((0.0, 1.0))
    guide = painter.Guide(parse_prompts(CAT), [one, other], painter.PaintOptions(), runtime.generator(0))
    assert [tower for tower, _ in guide.towers] == one.towers + other.towers
    assert [features.tolist() for _, features in guide.towers] == 2 * [[[1, 0]]] + 2 * [[[0, 1]]]


def test_the_course_s_guide_has_two_towers_that_look():
    guide = painter.Guide(parse_prompts(CAT), [load_guide()], painter.PaintOptions(), runtime.generator(0))
    assert len(guide.towers) == 2 and guide.share == 1


@pytest.mark.parametrize("asked, each", [(1, 1), (4, 2), (5, 3)])
def test_cutouts_are_dealt_out_among_the_towers(clip, model, monkeypatch, asked, each):
    """Of two CLIPs each sees its share of the cutouts, rounded up, at every step, and no two see the same."""
    seen, encode = [], type(clip).encode_pixels
    monkeypatch.setattr(
        type(clip), "encode_pixels", lambda self, pixels: (seen.append(pixels.detach()), encode(self, pixels))[1]
    )
    paint(CAT, [clip, clip], model, None, steps=2, cutouts=asked).finish()
    assert [len(pixels) for pixels in seen] == 4 * [each]
    assert not torch.equal(seen[0], seen[1])


def test_the_last_step_of_several_sketches_shows_its_codes(clip, model, prior):
    last = paint(CAT, clip, model, prior, sketches=5, **FEW).finish()
    assert last.index == 4 and model.decode(last.codes)[0].tobytes() == last.image.tobytes()


def test_the_worse_half_of_the_sketches_is_dropped_twice(clip, model, prior, monkeypatch):
    seen, look = [], painter.Guide.look

    def restored(prior, latents, clarity):
        seen.append(latents.detach().clone())
        return latents  # with a push of nearly nothing, every sketch stays what it is

    def watched(guide, pixels):
        losses, cosines = look(guide, pixels)
        return 0 * losses + torch.linspace(1, 0, len(losses)), cosines  # the last is the best

    monkeypatch.setattr(Prior, "restore", restored)
    monkeypatch.setattr(painter.Guide, "look", watched)
    paint(CAT, clip, model, prior, sketches=7, steps=6, cutouts=1, learning_rate=1e-9).finish()
    assert [len(latents) for latents in seen] == [7, 7, 4, 4, 2, 2]
    for before, after in ((seen[1], seen[2]), (seen[3], seen[4])):
        torch.testing.assert_close(after, before.flip(0)[: len(after)])


def test_pictures_and_texts_guide_together_and_each_keeps_its_score(clip, model):
    scene = world.scene("cat", background="blue").render(64)
    other = world.scene("dog", background="red").render(64)
    prompts = [CAT, (0.5, scene), (-0.5, other), (0.5, CAT)]
    painting = paint(prompts, clip, model, None, **FEW)
    scores = painting.finish().scores
    assert list(scores) == [CAT, "picture 1", "picture 2", f"{CAT} (2)"]
    assert scores["picture 1"] != scores["picture 2"] and scores[CAT] == pytest.approx(scores[f"{CAT} (2)"], abs=1e-6)
    weighted = 1.5 * scores[CAT] + 0.5 * scores["picture 1"] - 0.5 * scores["picture 2"]
    assert painting.score(painting.best) == pytest.approx(weighted / 2.5, abs=1e-6)


def test_the_loss_of_a_step_is_that_of_its_scores(clip, model, prior):
    """Also where bfloat16 is used: losses are float32."""
    for way in (None, prior):
        painting = paint("a cat | a dog:-0.3", clip, model, way, **FEW)
        for step in painting:
            assert step.loss == pytest.approx(1 - painting.score(step), abs=1e-4)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"steps": 0}, "steps must be a whole number"),
        ({"cutouts": 1.5}, "cutouts must be a whole number"),
        ({"seed": -1}, "a seed must be a whole number"),
        ({"jitter": -1}, "jitter must be a number from 0 to 4"),
        ({"smallest_cutout": 0}, "smallest_cutout must be a number from"),
        ({"learning_rate": 0}, "learning_rate must be a number above 0"),
        ({"keep": 1}, "keep must be a number from"),
        ({"prior": "ghost"}, "prior is"),
        ({"clip": []}, "there is no guide"),
        ({"sketches": 0}, "sketches must be a whole number"),
        ({"start": torch.full((4, 4), 99)}, "codes are numbers of 0 to 19"),
    ],
)
def test_options_that_make_no_sense_are_said(clip, model, options, said):
    with pytest.raises(ValueError, match=said):
        paint(CAT, **{"clip": clip, "vqgan": model} | options)


def test_another_vqgan_paints_without_a_prior(clip, model):
    assert paint(CAT, clip, model, **FEW).finish().index  # "auto" finds none for it


def test_a_clip_of_another_size_guides_too(model):
    """A full-size CLIP differs in its image size, its dim and its preprocessing; the painter asks it for none of
    them by name.
    """
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    from mmlesson.clip import CLIP

    size = {"layers": 2, "width": 32, "head_width": 16, "image_size": 112, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    big = open_clip.CLIP(embed_dim=24, vision_cfg=size, text_cfg=text).eval().requires_grad_(False)
    preprocess = image_transform_v2(PreprocessCfg(size=(112, 112)), is_train=False)
    guide = CLIP(big, preprocess, open_clip.SimpleTokenizer(context_length=77), "big")
    step = paint("a close-up oil portrait", guide, model, None, smallest_cutout=0.5, **FEW).finish()
    assert step.image.size == (32, 32)


# ------------------------------------------------------------------------------------------ animations


def test_an_animation_holds_every_step(clip, model, tmp_path):
    painting = paint(CAT, clip, model, None, steps=6, cutouts=1)
    with pytest.raises(ValueError, match="nothing to animate"):
        painting.save_animation(tmp_path / "cat.gif")
    painting.finish()
    film = Image.open(painting.save_animation(tmp_path / "cat.gif", fps=10, side=64))
    duration = 0
    for frame in range(film.n_frames):
        film.seek(frame)
        duration += film.info["duration"]
    assert film.size == (64, 64) and duration == (6 + 10) * 100  # frames that are alike are joined, their time is kept
    with pytest.raises(ValueError, match="a .gif or a .mp4"):
        painting.save_animation(tmp_path / "cat.avi")


def test_mp4_needs_ffmpeg(clip, model, tmp_path, monkeypatch):
    painting = paint(CAT, clip, model, None, steps=1, cutouts=1)
    painting.finish()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(AssetError, match="ffmpeg"):
        painting.save_animation(tmp_path / "cat.mp4")


def test_mp4_is_written_by_ffmpeg(clip, model, tmp_path, monkeypatch):
    """With a program in ffmpeg's place that joins the frames it is given."""
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nfor last; do :; done\ncat "$(dirname "$last")"/*.png > "$last"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    painting = paint(CAT, clip, model, None, steps=2, cutouts=1)
    painting.finish()
    assert painting.save_animation(tmp_path / "cat.mp4", fps=2).read_bytes().count(b"IHDR") == 2 + 2
    program.write_text("#!/bin/sh\necho no such codec >&2; exit 1\n")
    with pytest.raises(AssetError, match="no such codec"):
        painting.save_animation(tmp_path / "cat.mp4")
