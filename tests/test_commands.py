"""commands.py: each command does its work, and a mistake is one sentence."""

import json

import pytest

from mmlesson import cli, pixels


def test_world_draws_a_sheet(tmp_path):
    from PIL import Image

    sheets = []
    for name in ("one.png", "two.png"):
        assert cli.main(["world", "--sheet", str(tmp_path / name), "--seed", "5"]) == 0
        with Image.open(tmp_path / name) as sheet:
            assert sheet.width > 1000 and sheet.height > 500
            assert len(sheet.convert("RGB").getcolors(2**24)) > 1000  # many colours: not an empty page
            sheets.append(sheet.tobytes())
    assert sheets[0] == sheets[1]


# --------------------------------------------------------------------------------------------- search


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    from mmlesson import world

    folder = tmp_path_factory.mktemp("search") / "pictures"
    folder.mkdir()
    for name in ("cat", "dog", "pizza", "rocket"):
        world.scene(name, background="green", seed=1).render(120).save(folder / f"{name}.png")
    (folder / "pizza.txt").write_text("lunch")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def pictures(drawings, monkeypatch):
    """The folder of drawings, searched by the CLIP that knows drawings."""
    monkeypatch.setenv("MMLESSON_CLIP", "pocket-clip")
    return drawings


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    from mmlesson import world

    folder = tmp_path_factory.mktemp("search") / "photographs"
    folder.mkdir()
    for photo in world.photos("foolbox"):
        photo.image.save(folder / f"{photo.name}.jpg")
    return folder


def test_search_prints_paths_and_scores_best_first(pictures, capsys):
    query = ["a dog on a green background", "-k", "3", "--min-score", "-1"]
    assert cli.main(["search", str(pictures), *query]) == 0
    printed = capsys.readouterr()
    lines = [line.split(None, 1) for line in printed.out.splitlines()]
    assert len(lines) == 3 and lines[0][1] == str(pictures / "dog.png")
    assert [float(score) for score, _ in lines] == sorted((float(score) for score, _ in lines), reverse=True)
    assert "4 pictures, 1 left out:" in printed.err and "broken.png: " in printed.err


def test_search_as_json_filtered_and_as_a_grid(pictures, tmp_path, capsys):
    from PIL import Image

    grid = tmp_path / "found.png"
    options = ["--json", "--where", "caption = 'lunch'", "--min-score", "-1"]
    assert cli.main(["search", str(pictures), "a dog", *options, "--grid", str(grid)]) == 0
    (hit,) = json.loads(capsys.readouterr().out)
    assert (
        hit.keys() == {"path", "score", "caption"}
        and hit["path"] == str(pictures / "pizza.png")
        and hit["caption"] == "lunch"
    )
    assert Image.open(grid).width >= 128


def test_search_by_a_picture_and_less_of_something(pictures, capsys):
    assert cli.main(["search", str(pictures), "--like", str(pictures / "rocket.png"), "-k", "1"]) == 0
    assert capsys.readouterr().out.startswith("1.000  ")
    query = [
        "search",
        str(pictures),
        "a cat",
        "--like",
        str(pictures / "dog.png"),
        "--minus",
        "a cat",
        "--minus",
        "a cat",
        "-k",
        "1",
    ]
    assert cli.main(query) == 0
    assert "dog.png" in capsys.readouterr().out


def test_search_opens_the_best_one(pictures, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert cli.main(["search", str(pictures), "a pizza", "--open"]) == 0
    assert opened == [(pictures / "pizza.png").as_uri()]


def test_search_that_finds_nothing_says_so_by_its_exit_status(pictures, capsys):
    assert cli.main(["search", str(pictures), "a cat", "--min-score", "0.999"]) == 1
    assert capsys.readouterr().out.startswith("Nothing fits: the best score is ")


def test_photographs_are_searched_by_the_photo_clip(photographs, capsys):
    assert cli.main(["search", str(photographs), "a dog", "-k", "2"]) == 0
    printed = capsys.readouterr()
    assert {line.split("/")[-1] for line in printed.out.splitlines()} <= {"mastiff.jpg", "dalmatian.jpg"}
    assert "photo-clip, which learned from photographs, looks" in printed.err and "unlike" not in printed.err


def test_a_folder_finds_its_own_threshold(photographs, capsys):
    assert cli.main(["search", str(photographs), "a grand piano in the snow"]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("Nothing fits: the best score is ") and "--min-score -1" in printed.err
    assert cli.main(["search", str(photographs), "a grand piano in the snow", "--min-score", "-1", "-k", "1"]) == 0


def test_a_clip_that_meets_another_kind_of_pictures_says_so(drawings, photographs, capsys):
    assert cli.main(["search", str(drawings), "a dog", "--min-score", "-1"]) == 0
    assert "are unlike those that photo-clip learned from (photographs)" in capsys.readouterr().err
    query = ["a dog on a green background", "--min-score", "-1", "--model", "pocket-clip"]
    assert cli.main(["search", str(photographs), *query]) == 0
    assert "are unlike those that pocket-clip learned from (drawings" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["nowhere", "a cat"], "does not exist"),
        (["PICTURES"], "say what to look for"),
        (["PICTURES", ""], "the text is empty"),
        (["PICTURES", "a cat", "--where", "colour = 1"], "is not a filter in SQL"),
        (["PICTURES", "--like", "nowhere.png"], "nowhere.png"),
    ],
)
def test_search_wrongly_asked_is_a_sentence(pictures, arguments, said, capsys):
    assert cli.main(["search", *(str(pictures) if each == "PICTURES" else each for each in arguments)]) == 1
    printed = capsys.readouterr()
    (line,) = (line for line in printed.err.splitlines() if line.startswith("mmlesson: "))
    assert said in line and printed.out == ""
    assert "pictures," not in printed.err, "said before an index is built"


def test_search_stopped_says_what_is_kept(pictures, monkeypatch, capsys):
    from mmlesson.clip import CLIP

    def stopped(*_):
        raise KeyboardInterrupt

    (pictures / "new.png").write_bytes((pictures / "cat.png").read_bytes() + b" ")
    monkeypatch.setattr(CLIP, "encode_prepared", stopped)
    assert cli.main(["search", str(pictures), "a cat"]) == 130
    assert "0 of 2 new pictures are in the index" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- paint


def paint(*arguments) -> int:
    return cli.main(["paint", *map(str, arguments)])


def test_paint_writes_the_picture_and_how_it_grew(tmp_path, capsys):
    from PIL import Image

    picture, film = tmp_path / "cat.png", tmp_path / "cat.gif"
    assert (
        paint("a", "cat", "on", "a blue background", "--out", picture, "--animation", film, "--steps", 3, "--side", 128)
        == 0
    )
    assert Image.open(picture).size == Image.open(film).size == (128, 128)
    assert "step 3 of 3, a cat on a blue background: cosine" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["a cat:-1"], "say also what to paint"),
        ([" "], "there is no prompt"),
        (["a cat", "--start", "nowhere.png"], "nowhere.png"),
    ],
)
def test_paint_says_what_is_wrong_in_a_sentence(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paint(*arguments) == 1
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_paint_keeps_what_there_is_on_ctrl_c(tmp_path, capsys, monkeypatch):
    from PIL import Image

    from mmlesson import painter

    real = painter.paint_with_prior

    def interrupted(*arguments):
        for step in real(*arguments):
            yield step
            if step.index == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(painter, "paint_with_prior", interrupted)
    picture = tmp_path / "cat.png"
    assert paint("a cat", "--out", picture, "--steps", 50) == 130
    assert Image.open(picture).size == (384, 384) and "holds the painting so far" in capsys.readouterr().err


@pytest.fixture(scope="module")
def untrained_dalle(tmp_path_factory):
    """The folder of a tiny DALL-E for the codes of the pocket VQGAN, under the name that `--model` takes."""
    from mmlesson import load_vqgan
    from mmlesson.models.folders import save_folder
    from mmlesson.train.dalle import new_model

    return (
        f"local-dir:{save_folder(new_model(load_vqgan(), dim=32, layers=1, heads=2), tmp_path_factory.mktemp('dalle'))}"
    )


def test_draw_writes_one_sheet_of_all_pictures(untrained_dalle, tmp_path, capsys, monkeypatch):
    from PIL import Image

    from mmlesson import dalle as dalles
    from mmlesson.pixels import image_grid

    drawing, grid, asked, given, shown = dalles.DALLE.generate_steps, image_grid, [], [], []
    monkeypatch.setattr(
        dalles.DALLE,
        "generate_steps",
        lambda self, *settings, **more: asked.append((settings, more)) or drawing(self, *settings, **more),
    )
    monkeypatch.setattr(
        dalles,
        "rerank",
        lambda pictures, *_: given.extend(pictures) or dalles.Ranked(pictures[::-1], [0.3, 0.2, 0.1], [2, 1, 0]),
    )
    monkeypatch.setattr(pixels, "image_grid", lambda pictures, *more: shown.extend(pictures) or grid(pictures, *more))
    out = tmp_path / "cats.png"
    options = [
        "--model",
        untrained_dalle,
        "-n",
        "3",
        "--seed",
        "7",
        "--top-k",
        "5",
        "--guidance",
        "2",
        "--rerank",
        "--out",
        str(out),
    ]
    assert cli.main(["draw", "a cat", "on a blue background", *options]) == 0
    assert asked == [(("a cat on a blue background", 3, 7), {"top_k": 5, "guidance": 2.0})]
    assert [picture.tobytes() for picture in shown] == [
        picture.resize((192, 192)).tobytes() for picture in given[::-1]
    ], "the best first"
    sheet = Image.open(out)
    assert sheet.width > 3 * 192 and sheet.height >= 192
    assert "3 pictures of “a cat on a blue background”" in capsys.readouterr().out


def test_a_picture_of_a_sheet_can_be_drawn_again_alone(untrained_dalle, tmp_path, capsys):
    from PIL import Image

    sheet, alone = tmp_path / "sheet.png", tmp_path / "alone.png"
    drawn = ["draw", "a cat", "--model", untrained_dalle, "-n", "3", "--seed", "7", "--out"]
    assert cli.main([*drawn, str(sheet)]) == 0 and "`--pick 2` writes the second alone" in capsys.readouterr().out
    assert cli.main([*drawn, str(alone), "--pick", "2"]) == 0 and "picture 2 of 3 of “a cat”" in capsys.readouterr().out
    second = Image.open(sheet).crop((8 + 200, 8, 8 + 200 + 192, 8 + 192))
    assert Image.open(alone).size == (192, 192) and Image.open(alone).tobytes() == second.tobytes()
    assert cli.main([*drawn, str(alone), "--pick", "4"]) == 1
    assert "there is no picture 4 among 3" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["paint", "draw"])
def test_the_last_line_says_how_to_have_the_picture_again(command, untrained_dalle, tmp_path, capsys):
    import torch

    before = torch.get_num_threads()
    work = {"paint": ["--steps", "2"], "draw": ["--model", untrained_dalle, "-n", "1"]}[command]
    pictures = []
    try:
        for number, threads in enumerate((2, 1, 2)):
            torch.set_num_threads(before)
            out = tmp_path / f"{number}.png"
            asked = [command, "a cat", *work, "--seed", "5", "--threads", str(threads), "--out", str(out)]
            assert cli.main(asked) == 0
            assert f"(seed 5, --threads {threads})" in capsys.readouterr().out
            pictures.append(out.read_bytes())
    finally:
        torch.set_num_threads(before)
    assert pictures[0] == pictures[2]


def test_draw_tells_the_settings_that_it_takes_by_itself(capsys):
    from mmlesson.dalle import GUIDANCE, TEMPERATURE

    with pytest.raises(SystemExit):
        cli.main(["draw", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"less often; default: {TEMPERATURE:g} " in told and f"more strongly; default: {GUIDANCE:g} " in told


def test_draw_says_which_model_is_missing(tmp_path, capsys):
    out = tmp_path / "cat.png"
    assert cli.main(["draw", "a cat", "--model", "local-dir:nowhere", "--out", str(out)]) == 1
    assert "is missing" in capsys.readouterr().err and not out.exists()
