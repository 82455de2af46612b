"""words.py: the words of a text, and that every room answers a text that says nothing in the same way."""

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_painter import model as model  # a fixture: a tiny VQGAN
from test_vqgan import TINY

from mmlesson import cli, painter, words
from mmlesson.dalle import DALLEConfig, new_dalle, pieces_of

RED = Image.new("RGB", (64, 64), "red")
NOTHING = ["", "   ", "\n\t", "???", "…", "\x07", "\0", "\u202e", "-1", "|"][:8]
STRANGE = ["🦄", "кошка", "猫", "नमस्ते", "q" * 10_000, "👩‍🚀🏽", "cafe\u0301x"]


@pytest.fixture(scope="module")
def clip(small_folder):
    """A random CLIP that knows ten words: "a", "picture", "red", "apple", "cat" and some more."""
    from mmlesson import load_clip

    return load_clip(f"local-dir:{small_folder}")


@pytest.fixture(scope="module")
def dalle():
    pieces = pieces_of(["a cat on a red background"])
    return new_dalle(
        DALLEConfig(pieces, text_length=12, n_codes=TINY.n_codes, grid=2, dim=32, layers=1, heads=2)
    ).eval()


@pytest.fixture
def index(clip, tmp_path):
    from mmlesson.search import ImageIndex

    return ImageIndex.build([RED], clip, tmp_path / "index")


@pytest.mark.parametrize(
    "text, found",
    [
        ("A Cat's T-shirt, 2 dogs!", ["a", "cat", "t", "shirt", "2", "dogs"]),
        ("under_score", ["under", "score"]),
        ("a 🦄🐱 cat", ["a", "🦄🐱", "cat"]),
        ("👩‍🚀", ["👩‍🚀"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("cafe\u0301", ["café"]),
        ("a\u202ecat\x07", ["a", "cat"]),
        ("猫が好き", ["猫が好き"]),
        ("", []),
        ("?!… — \x07\u200b", []),
    ],
)
def test_words_of_a_text(text, found):
    assert words.words_of(text) == found


@given(st.text())
def test_every_text_is_read_or_refused(text):
    try:
        words.check("a model", [text], {"cat"}.__contains__)
    except ValueError as error:
        assert str(error).isprintable() and len(str(error)) < 400
    else:
        assert "cat" in words.words_of(text)


# ------------------------------------------------------------------------------------ every room, one sentence


def asked(room: str, text: str, clip, dalle, vqgan, index):
    """Let a room read a text."""
    if room == "encode_texts":
        return clip.encode_texts(["a cat", text])
    if room == "tokenize":
        return clip.tokenize(text)
    if room == "similarity":
        return clip.similarity([RED], ["a cat", text])
    if room == "classify":
        return clip.classify([RED], ["a cat", text])
    if room == "search":
        return index.search(text)
    if room == "search, weighted":
        return index.search(["a cat", (-0.5, text)])
    if room == "scores":
        return index.scores([text])
    if room == "paint":
        return next(painter.paint([(2, text), "a cat"], clip, vqgan, prior=None, steps=1))
    return dalle.generate(text)


ROOMS = ("encode_texts", "tokenize", "similarity", "classify", "search", "search, weighted", "scores", "paint", "draw")


@pytest.mark.parametrize("room", ROOMS)
def test_a_text_that_says_nothing_is_refused(room, clip, dalle, model, index):
    for text in NOTHING:
        if room == "paint" and not text.strip():
            continue  # beside another prompt, nothing between two bars is no prompt
        with pytest.raises(ValueError, match="there is no word in|the text is empty"):
            asked(room, text, clip, dalle, model, index)
    for text in STRANGE:
        with pytest.raises(ValueError, match=r"never met any word of .* in its training: say what the picture shows"):
            asked(room, text, clip, dalle, model, index)


@pytest.mark.parametrize("room", ROOMS)
def test_a_word_that_is_not_known_is_named(room, clip, dalle, model, index):
    clip._warned.clear()
    with pytest.warns(UserWarning, match="never met the word '🦄' in its training: ") as said:
        asked(room, "a cat 🦄", clip, dalle, model, index)
    assert len(said) == 1


def test_a_label_has_a_word_of_its_own_whatever_the_template(clip):
    with pytest.raises(ValueError, match="there is no word in"):
        clip.classify([RED], ["a cat", "?"], templates=["a picture of {}"])
    with pytest.warns(UserWarning, match="'unicorn'"):
        clip.classify([RED], ["cat", "unicorn"], templates=["a picture of {}"])


def test_a_model_whose_words_nobody_knows_reads_signs_and_any_script(clip, monkeypatch):
    monkeypatch.setattr(clip, "vocabulary", None)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*never met")
        warnings.filterwarnings("ignore", message=".*tokens")
        for text in STRANGE:
            assert clip.encode_texts(text).isfinite().all()
    with pytest.raises(ValueError, match="there is no word"):
        clip.encode_texts("???")


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3", None, float("nan")])
def test_texts_at_once_are_a_whole_number(clip, value):
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, not "):
        clip.encode_texts("a cat", batch_size=value)


def test_bytes_that_are_no_text_are_said(clip):
    with pytest.raises(ValueError, match="is not a text: the terminal sent bytes that are not UTF-8"):
        clip.encode_texts("a cat \udc80")


@pytest.mark.parametrize("text", ["", " ", "???", "\x07", "🦄", "кошка", "q" * 10_000])
@pytest.mark.parametrize("command", ["search", "paint", "draw"])
def test_the_commands_refuse_it_in_a_sentence_and_write_nothing(command, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pictures"
    folder.mkdir()
    RED.save(folder / "red.png")
    monkeypatch.setenv("MMLESSON_CLIP", "pocket-clip")
    assert cli.main([command, *(["pictures"] if command == "search" else []), text]) == 1
    out, err = capsys.readouterr()
    (line,) = (line for line in err.splitlines() if line.startswith("mmlesson: "))
    assert out == "" and line.isprintable() and len(line) < 300
    assert any(part in line for part in ("no word", "text is empty", "never met any word", "there is no prompt"))
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


# --------------------------------------------------------------------------------------------- sentences


@pytest.mark.parametrize(
    "missing, guesses, said",
    [
        (["yak"], True, "it never met the word 'yak' in its training: what it makes of it is a guess."),
        (["yak", "gnu"], False, "it never met the words 'yak', 'gnu' in its training: it reads the text without them."),
        ([f"w{i}" for i in range(12)], True, "'w6', 'w7' and 4 more in its training"),
        (["q" * 99], True, f"the word '{'q' * 40}…' in"),
        (["\x1b[2J"], True, r"the word '\x1b[2J' in"),
    ],
)
def test_unknown_words_are_named(missing, guesses, said):
    assert said in words.never_met("it", missing, guesses)


@pytest.mark.parametrize(
    "name, said",
    [
        ("a cat.png", "a cat.png"),
        ("猫.png", "猫.png"),
        ("a\nb.png", r"'a\nb.png'"),
        ("\x1b[31mred.png", r"'\x1b[31mred.png'"),
        ("gnp.\u202etac", r"'gnp.\u202etac'"),
        ("caf\udce9.png", r"'caf\udce9.png'"),
    ],
)
def test_a_hostile_name_is_shown_quoted(name, said):
    assert words.shown(name) == said
    assert words.escaped(f"{name} is broken").replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "message, said",
    [
        (
            "column missing, /home/builder/.cargo/registry/src/index-6f17/lance-0.1/src/dataset.rs:12:34",
            "column missing",
        ),
        ("bad plan (rust/lance/src/io/exec.rs:7)", "bad plan"),
        ("column missing at src\\io\\scan.cpp:120", "column missing"),
        ("the ratio 3:4 in cat.rs is odd", "the ratio 3:4 in cat.rs is odd"),
    ],
)
def test_the_source_of_another_project_is_left_out(message, said):
    assert words.without_places(message) == said


@settings(max_examples=30)
@given(st.text(max_size=60))
def test_escaped_is_always_safe_to_print(text):
    assert words.escaped(text).replace("\n", "").isprintable()
