"""What the tests of image search share: a stand-in for CLIP that knows colours, and a folder of ten pictures."""

import pytest
from colours import Colours, ten_pictures


@pytest.fixture
def clip():
    return Colours()


@pytest.fixture
def folder(tmp_path):
    return ten_pictures(tmp_path)
