"""prompts.py: what is a weight, what is text, and that the reader is told."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmlesson import cli
from mmlesson.prompts import parse_prompts


@pytest.mark.parametrize(
    "text, content, weight",
    [
        ("a clock at 12:30", "a clock at 12:30", 1),
        ("at 9:05:00", "at 9:05:00", 1),
        ("12:30", "12:30", 1),
        ("16:9", "16:9", 1),
        ("a clock at 12 :30", "a clock at 12", 30),
        ("Avengers: Infinity", "Avengers: Infinity", 1),
        ("a cat:nan", "a cat:nan", 1),
        ("a cat:inf", "a cat:inf", 1),
        ("a cat::2", "a cat", 2),
        ("a cat: ", "a cat:", 1),
        ("a cat:", "a cat:", 1),
        ("a cat:-", "a cat:-", 1),
        ("a cat:2 dogs", "a cat:2 dogs", 1),
        ("a cat:٣", "a cat:٣", 1),
        ("a cat:1_0", "a cat:1_0", 1),
        ("a cat:0x10", "a cat:0x10", 1),
        ("C:\\pictures\\cat.png", "C:\\pictures\\cat.png", 1),
        ("C:\\pictures\\cat:2", "C:\\pictures\\cat", 2),
        (r"a score of\: 2", "a score of: 2", 1),
        (r"a cat\|dog:2", "a cat|dog", 2),
        ("a cat:.5", "a cat", 0.5),
        ("a cat : +2", "a cat", 2),
        ("a cat:1e3", "a cat", 1000),
    ],
)
def test_only_a_number_at_the_very_end_is_a_weight(text, content, weight):
    (prompt,) = parse_prompts(text)
    assert (prompt.content, prompt.weight) == (content, weight)


@pytest.mark.parametrize(
    "prompts, said",
    [
        ("a:b:-1", "every prompt has a weight below 0 (“a:b” with the weight -1)"),
        ("?:2", "“?:2” is a weight without a prompt"),
        (":2 | a cat", "“:2” is a weight without a prompt"),
        ("a cat:1e400", "must be a number from -1000000.0 to 1000000.0, not inf"),
        ("a cat:1e9", "must be a number from -1000000.0 to 1000000.0"),
        ((1e5, "a cat:1e5"), "must be a number from -1000000.0 to 1000000.0"),
        ("a cat:1e-9", "is a number other than 0, not 1e-09"),
        ((float("nan"), "a cat"), "must be a number from"),
        ((float("-inf"), "a cat"), "must be a number from"),
    ],
)
def test_what_is_no_weight_is_said(prompts, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_prompts(prompts)


@given(st.text(), st.floats(allow_nan=True, allow_infinity=True) | st.text(max_size=5))
def test_every_text_is_read_or_refused_and_no_weight_is_beyond_a_million(text, end):
    try:
        read = parse_prompts(f"{text}:{end}")
    except ValueError:
        return
    assert all(1e-6 <= abs(prompt.weight) <= 1e6 and prompt.content for prompt in read)
    assert len({prompt.name for prompt in read}) == len(read)


@given(st.text(alphabet=st.characters(blacklist_characters=":|\\"), min_size=1))
def test_a_text_without_colons_and_bars_stays_as_it_is(text):
    if text.strip():
        assert [(prompt.content, prompt.weight) for prompt in parse_prompts(text)] == [(text.strip(), 1)]


def test_the_same_picture_and_the_same_text_twice_keep_their_own_scores():
    red = Image.new("RGB", (8, 8), "red")
    read = parse_prompts([red, (0.5, red), "a cat:2 | a cat:-1"])
    assert [(prompt.name, prompt.weight) for prompt in read] == [
        ("picture 1", 1),
        ("picture 2", 0.5),
        ("a cat", 2),
        ("a cat (2)", -1),
    ]


def test_the_command_says_what_it_read(tmp_path, capsys):
    out = tmp_path / "cat.png"
    assert (
        cli.main(["paint", "a cat at 12:30", "|", "a dog:-0.5 | a cat at 12:30", "--steps", "1", "--out", str(out)])
        == 0
    )
    said = capsys.readouterr()
    assert "painting “a cat at 12:30” with the weight 1, “a dog” with the weight -0.5, “a cat at 12:30 (2)”" in said.err
    assert re.search(r"a cat at 12:30: cosine .*, a dog: cosine .*, a cat at 12:30 \(2\): cosine", said.out)
