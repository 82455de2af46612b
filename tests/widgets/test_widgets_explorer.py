"""The first widget of lesson 4: token_explorer."""

import re
import warnings

import numpy as np
import pytest
from PIL import Image, ImageColor
from widget_tools import PROMPT, controls, explored, has_picture, is_problem, note, pixels, sentence, shown

from mmlesson.teach import figures, widgets
from mmlesson.teach.widgets import codes as codes_shown


def listed(box) -> list[list[str]]:
    """The rows of the table of codes, as texts."""
    rows = shown(box).split("<tr>")[2:]
    return [[re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in rows]


def put_options(box) -> list[int]:
    return [code for _, code in controls(box)["Put in"].options]


def test_the_explorer_shows_what_the_model_expects(dalle, vqgan):
    image = Image.linear_gradient("L")
    box = widgets.token_explorer(dalle, vqgan, image, PROMPT, k=3)
    control, codes = controls(box), vqgan.encode(image)[0]
    assert (control["Row"].value, control["Column"].value) == (3, 3) and (
        control["Row"].max,
        control["Column"].min,
    ) == (4, 1)
    control["Row"].value, control["Column"].value = 2, 4

    stream = dalle.streams(dalle.text_tokens(PROMPT), codes[None])[0, : 12 + 7]
    chances = dalle.next_token(stream)[dalle.config.first_code :].numpy()
    order, now = (-chances).argsort(kind="stable"), int(codes[1, 3])
    rank = order.tolist().index(now) + 1
    rows = listed(box)
    for number, (code, row) in enumerate(zip(order[:3], rows[:3], strict=True), 1):
        assert row == [str(number), "", f"{code} ◀ there now" if code == now else str(code), f"{chances[code]:.1%}"]
    assert shown(box).count("◀ there now") == 1
    if rank > 3:
        assert rows[3] == [str(rank), "", f"{now} ◀ there now", f"{chances[now]:.1%}"]
    assert rows[-1][2] == "all others"
    assert sum(float(row[3].strip("<%")) for row in rows) == pytest.approx(100, abs=0.5)
    assert put_options(box) == order[:3].tolist()
    assert (
        f"At row 2, column 4, given the caption and 7 codes, the likeliest is code {order[0]}, {chances[order[0]]:.1%}."
        in sentence(box)
    )
    assert f"There now: code {now}, rank {rank} of 20, {chances[now]:.1%}." in sentence(box)

    names = re.findall(
        r"<span[^>]*>([^<]*)</span>", shown(box).split('aria-label="The stream up to the place"')[1].split("</div>")[0]
    )
    last = [f"code {code}" for code in codes.flatten()[3:7].tolist()]
    assert names == ["start", *PROMPT.split(), "end", "padding × 4", "… 3 codes …", *last, "?"]
    assert [alt for alt, _ in explored(box)] == [
        "What it has read of the picture: 7 codes",
        "The picture, row 2, column 4 outlined",
    ]


def test_the_place_is_outlined_and_what_is_not_read_is_grey(dalle, vqgan):
    box = widgets.token_explorer(dalle, vqgan)
    controls(box)["Row"].value, controls(box)["Column"].value = 2, 4
    (_, read), (_, whole) = explored(box)
    read, whole = pixels(read), pixels(whole)  # [240, 240, 3], 60 a code
    grey, mark = (184, 184, 184), ImageColor.getrgb(figures.MARK)
    assert read.shape == whole.shape == (240, 240, 3)
    for picture in (read, whole):
        assert (
            tuple(picture[60, 200])
            == tuple(picture[119, 200])
            == tuple(picture[90, 180])
            == tuple(picture[90, 239])
            == mark
        )
        assert tuple(picture[58, 200]) == (255, 255, 255)
    # where it is made larger, the border is soft by 15 pixels
    assert (
        (read[136:] == grey).all()
        and (read[76:104, 196:230] == grey).all()
        and not (read[:104, :164] == grey).all(-1).any()
    )
    assert not (whole == grey).all(-1).any()
    controls(box)["Row"].value, controls(box)["Column"].value = 1, 1  # nothing is read yet
    assert (pixels(explored(box)[0][1])[64:] == grey).all() and "given the caption and 0 codes" in sentence(box)
    controls(box)["Row"].value, controls(box)["Column"].value = 4, 4
    assert "given the caption and 15 codes" in sentence(box) and not is_problem(box)


def test_without_a_picture_it_explores_what_is_drawn_of_the_prompt(dalle, vqgan):
    box = widgets.token_explorer(dalle, vqgan, prompt=PROMPT)
    code = int(dalle.generate(PROMPT, 1, seed=0)[0, 2, 2])
    assert f"There now: code {code}," in sentence(box)


def test_another_caption_changes_what_is_expected_and_not_the_picture(dalle, vqgan):
    box = widgets.token_explorer(dalle, vqgan)
    before, whole = listed(box), explored(box)[1]
    controls(box)["Prompt"].value = " a dog  on a red one "
    assert listed(box) != before and explored(box)[1] == whole
    assert ">dog</span>" in shown(box) and ">cat</span>" not in shown(box)
    controls(box)["Prompt"].value = PROMPT
    assert listed(box) == before


def test_a_code_is_put_in_and_taken_back(dalle, vqgan):
    box = widgets.token_explorer(dalle, vqgan)
    control = controls(box)
    assert control["Undo"].disabled
    old, (_, second) = explored(box)[1][1], put_options(box)[:2]
    control["Put in"].value = second
    control["Put it here"].click()
    assert f"Code {second} is there instead of code" in sentence(
        box
    ) and f"There now: code {second}, rank 2 of 20" in sentence(box)
    assert "Choose row 4" in sentence(box)
    (before_alt, before), (after_alt, after) = explored(box)
    assert (before_alt, after_alt) == (
        "The picture before, row 3, column 3 outlined",
        "The picture after, row 3, column 3 outlined",
    )
    assert before == old != after and not control["Undo"].disabled

    control["Put the likeliest here"].click()
    first = put_options(box)[0]
    assert f"Code {first} is there instead of code {second}." in sentence(box) and "rank 1 of 20" in sentence(box)
    likeliest = explored(box)[1][1]
    assert explored(box)[0][1] == after != likeliest
    control["Put the likeliest here"].click()
    assert f"Code {first} is there already." in sentence(box) and explored(box)[1] == (
        "The picture, row 3, column 3 outlined",
        likeliest,
    )

    control["Undo"].click()
    assert "taken back" in sentence(box) and explored(box)[0][1] == likeliest and explored(box)[1][1] == after
    control["Undo"].click()
    assert explored(box)[1][1] == old and control["Undo"].disabled
    control["Undo"].click()
    assert not is_problem(box) and explored(box)[1][1] == old
    control["Column"].value = 2
    assert explored(box)[0][0].startswith("What it has read")


def test_the_rest_is_drawn_and_the_rows_above_stay(dalle, vqgan):
    box = widgets.token_explorer(dalle, vqgan)
    control, codes = controls(box), dalle.generate(PROMPT, 1, seed=0)[0]

    def holds(expected) -> bool:
        picture = codes_shown.outlined(
            vqgan.decode(expected)[0], control["Row"].value - 1, control["Column"].value - 1, 4
        )
        return np.array_equal(pixels(explored(box)[1][1]), np.asarray(picture))

    assert holds(codes)
    control["Seed"].value = 7
    control["Let it draw the rest"].click()
    drawn = dalle.generate(PROMPT, 1, seed=7, prefix_codes=codes[:2])[0]
    assert (
        holds(drawn)
        and sentence(box).startswith("Rows 3 to 4 are drawn anew, with seed 7.")
        and "before" in explored(box)[0][0]
    )
    control["Undo"].click()
    assert holds(codes)
    control["Row"].value = 1
    control["Let it draw the rest"].click()
    assert holds(dalle.generate(PROMPT, 1, seed=7)[0]) and "The whole picture is drawn anew" in sentence(box)
    control["Row"].value = 4
    control["Put the likeliest here"].click()
    assert "Choose row" not in sentence(box)
    control["Let it draw the rest"].click()
    assert "The last row is drawn anew" in sentence(box)


@pytest.mark.parametrize("press", ["Put the likeliest here", "Put it here", "Let it draw the rest", "Undo"])
def test_without_a_prompt_nothing_changes_in_the_explorer(dalle, vqgan, press):
    box = widgets.token_explorer(dalle, vqgan)
    control = controls(box)
    control["Seed"].value = 5
    control["Let it draw the rest"].click()
    _, drawn = explored(box)[1]
    control["Prompt"].value = "  "
    assert is_problem(box) and "There is no prompt" in sentence(box) and not has_picture(box)
    control[press].click()
    assert is_problem(box) and "There is no prompt" in sentence(box) and not control["Undo"].disabled
    control["Prompt"].value = PROMPT
    assert not is_problem(box) and explored(box)[1][1] == drawn


def test_words_that_the_dalle_never_read_are_noted_every_time(dalle, vqgan):
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        box = widgets.token_explorer(dalle, vqgan, prompt="a <zeppelin>")
        assert note(box).count("never met the word &#x27;zeppelin&#x27;") == 1
        controls(box)["Row"].value = 1
        controls(box)["Let it draw the rest"].click()
        assert note(box).count("never met the word &#x27;zeppelin&#x27;") == 1
        controls(box)["Prompt"].value = PROMPT
    assert note(box) == "" and not leaked


WRONG = [{"k": 0}, {"k": 11}, {"k": True}, {"k": 2.5}, {"prompt": " "}, {"prompt": 7}, {"image": "nowhere.png"}]


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_arguments_of_the_explorer_raise(dalle, vqgan, wrong):
    with pytest.raises(ValueError, match=wrong.get("image", next(iter(wrong)))):
        widgets.token_explorer(dalle, vqgan, **wrong)


@pytest.mark.parametrize("widget", [widgets.token_explorer, widgets.sampler_box])
def test_the_codes_of_another_vqgan_are_refused(dalle, vqgan, widget):
    from mmlesson.gates import AssetError
    from mmlesson.vqgan import new_vqgan

    with pytest.raises(AssetError, match="load the one that it was trained with"):
        widget(dalle, new_vqgan(vqgan.config))
