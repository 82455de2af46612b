"""open_clip and timm come without torch's compiler, which can be imported afterwards as ever."""

import pytest
from forked import run


def test_a_clip_reads_and_looks_without_the_compiler_and_the_compiler_still_comes_when_it_is_asked_for():
    code = """
import sys, torch
from mmlesson import load_clip
clip = load_clip("pocket-clip", "cpu")
clip.encode_texts(["a cat"]), clip.encode_pixels(torch.zeros(1, 3, 64, 64))
print("torch._dynamo" in sys.modules, hasattr(torch, "__path__"))
import torch._dynamo, torchvision.ops
print(torch._dynamo.is_compiling(), torch._dynamo.disable.__module__)
from torchvision.ops import roi_align
print(list(roi_align(torch.ones(1, 1, 4, 4), torch.tensor([[0, 0, 0, 2.0, 2.0]]), 1).shape))
"""
    assert run(code).splitlines() == ["False True", "False torch._dynamo.decorators", "[1, 1, 1, 1]"]


@pytest.mark.parametrize("placeholder", ["compiler.disable", "part.is_compile_supported"])
def test_a_version_that_asks_for_more_gets_the_compiler(placeholder):
    code = f"""
from pathlib import Path
import mmlesson.models
source = (Path(mmlesson.models.__file__).parent / "libraries.py").read_text()
assert source.count({placeholder!r}) == 1
exec(source.replace({placeholder!r}, "part.unknown"))  # a placeholder without what it is asked for
import torch._dynamo
print(open_clip.__name__, timm.is_model("resnet18"), torch._dynamo.disable.__module__)
"""
    assert run(code).splitlines() == ["open_clip True torch._dynamo.decorators"]
