"""gates.py: what is no number and what cannot take a result is refused in a sentence; the rest passes unchanged."""

import os
from fractions import Fraction

import numpy as np
import pytest

from mmlesson import gates

NO_NUMBERS = (None, True, False, "3", "٣", "nan", b"3", [3], {}, 3j, np.bool_(True), np.array(3), np.array([3]))


NOT_FINITE = (float("nan"), float("inf"), -float("inf"), np.float64("nan"), 10**400)


@pytest.mark.parametrize("value", [*NO_NUMBERS, *NOT_FINITE[:-1], 3.0, np.float32(3), Fraction(3, 1)])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(ValueError, match=r"^k must be a whole number from 1 to 9, not .*\.$"):
        gates.whole_number("k", value, 1, 9)


@pytest.mark.parametrize("value", [*NO_NUMBERS, *NOT_FINITE])
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(ValueError, match=r"^a share must be a number.*, not .*\.$"):
        gates.real_number("a share", value)


@pytest.mark.parametrize("value", [1, 9, np.int64(5), np.uint8(7)])
def test_a_whole_number_passes_as_an_int(value):
    number = gates.whole_number("k", value, 1, 9)
    assert type(number) is int and number == value


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.25), np.int64(1), Fraction(1, 2)])
def test_a_number_passes_as_a_float(value):
    number = gates.real_number("a share", value, above=0, most=1)
    assert type(number) is float and number == value


@pytest.mark.parametrize(
    "limits, wrong, kind",
    [
        ({"least": 0}, -1, "a whole number of at least 0"),
        ({"most": 0}, 1, "a whole number of at most 0"),
        ({"least": 0, "most": 0}, 1, "a whole number from 0 to 0"),
        ({"least": 0, "most": 2**63 - 1}, 2**63, "a whole number from 0 to 9223372036854775807"),
    ],
)
def test_a_whole_number_has_limits_and_0_is_one(limits, wrong, kind):
    with pytest.raises(ValueError) as refused:
        gates.whole_number("k", wrong, **limits)
    assert str(refused.value) == f"k must be {kind}, not {wrong}."
    assert gates.whole_number("k", 0, **limits) == 0
    assert gates.whole_number("k", wrong) == wrong


@pytest.mark.parametrize(
    "limits, wrong, kind",
    [
        ({"above": 0}, 0.0, "a number above 0"),
        ({"above": 0, "most": 1}, 1.5, "a number above 0 and at most 1"),
        ({"least": 0}, -0.1, "a number of at least 0"),
        ({"least": -1, "most": 0}, 0.1, "a number from -1 to 0"),
    ],
)
def test_a_number_has_limits_and_0_is_one(limits, wrong, kind):
    with pytest.raises(ValueError) as refused:
        gates.real_number("t", wrong, **limits)
    assert str(refused.value) == f"t must be {kind}, not {wrong}."


# ------------------------------------------------------------------------------- the place of a result


def test_a_good_place_passes_and_nothing_is_written(tmp_path):
    assert gates.output_path(tmp_path / "new" / "cat.PNG", (".png",)) == tmp_path / "new" / "cat.PNG"
    assert gates.output_path(str(tmp_path / "any")) == tmp_path / "any"
    assert gates.output_folder(tmp_path / "new" / "below") == tmp_path / "new" / "below"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old.png").write_text("old")
    assert gates.output_path(tmp_path / "old.png", (".png",)).read_text() == "old"


@pytest.mark.parametrize(
    "name, error, said",
    [
        ("cat.txt", ValueError, "has to end in .png or .gif."),
        ("cat", ValueError, "has to end in .png or .gif."),
        (".png", ValueError, "has to end in .png or .gif."),
        ("folder.png", ValueError, "is a folder: name a file, such as"),
        ("file.png/cat.png", gates.AssetError, "make the folder writable, or choose another one."),
        ("a\0b.png", ValueError, "is no name of a file."),
        (f"{'ä' * 120}.png", ValueError, "is too long for the name of a file"),
    ],
)
def test_a_place_that_takes_no_file_is_refused(name, error, said, tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file.png").touch()
    with pytest.raises(error) as refused:
        gates.output_path(os.path.join(tmp_path, name), (".png", ".gif"))
    assert said in str(refused.value)


@pytest.mark.parametrize("path", ["", ".", "/"])
def test_no_name_is_no_file(path):
    with pytest.raises(ValueError, match="is no name of a file"):
        gates.output_path(path)


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="devices are files on POSIX systems only")
def test_a_device_is_not_replaced():
    with pytest.raises(ValueError, match="is a device"):
        gates.output_path("/dev/null")


def test_a_folder_that_cannot_be_one_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file: name a folder"):
        gates.output_folder(tmp_path / "file")
    with pytest.raises(gates.AssetError, match="Nothing can be written to"):
        gates.output_folder(tmp_path / "file" / "below")
    with pytest.raises(ValueError, match="is no name of a folder"):
        gates.output_folder("")
