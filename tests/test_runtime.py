"""runtime.py: devices, precision, threads, seeds, progress, memory; and what `import mmlesson` costs."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from mmlesson import runtime


def python(code: str, **environment: str) -> str:
    """What a fresh Python prints that runs `code`."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ------------------------------------------------------------------------------------------- import


def test_import_brings_in_nothing_heavy():
    """What `import mmlesson` costs in seconds is measured by `mmlesson bench clip`."""
    code = (
        "import json, sys; before = len(sys.modules); import mmlesson; heavy = ('torch', 'open_clip', 'numpy', 'PIL');"
        "print(json.dumps([len(sys.modules) - before, [name for name in heavy if name in sys.modules]]))"
    )
    more, heavy = json.loads(python(code))
    assert heavy == [] and more <= 5


def test_runtime_assets_and_cli_do_not_import_torch():
    code = (
        "import sys; from mmlesson import runtime, gates, cli, doctor; "
        "print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    assert python(code).split() == ["False", "False"]


def test_lazy_names_are_listed_and_resolve():
    import mmlesson

    assert {"load_clip", "check", "world", "__version__"} <= set(mmlesson.__all__) <= set(dir(mmlesson))
    for name in mmlesson.__all__:
        assert getattr(mmlesson, name) is not None, name
    assert mmlesson.world.__name__ == "mmlesson.world"
    with pytest.raises(AttributeError, match="no attribute 'load_clap'"):
        mmlesson.load_clap  # noqa: B018 - asking is what raises


# ------------------------------------------------------------------------------------------- device


def test_device_chooses_the_best_here():
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert runtime.device().type == best
    assert runtime.device("cpu") == torch.device("cpu")
    assert runtime.device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "xla", "cpu cpu", "meta"])
def test_device_of_a_wrong_name_says_which_there_are(name):
    with pytest.raises(ValueError, match="not a device that the course runs on: use cpu"):
        runtime.device(name)


def test_device_that_is_not_here_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert runtime.device() == torch.device("cpu")
    with pytest.raises(ValueError, match="no CUDA GPU that torch can use: use cpu instead of cuda"):
        runtime.device("cuda")
    with pytest.raises(ValueError, match="no Apple GPU that torch can use"):
        runtime.device("mps")


def test_device_number_that_is_not_here_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert runtime.device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="no GPU number 2 here; the last one is cuda:1"):
        runtime.device("cuda:2")


# ---------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize(
    "fast, enabled, expected",
    [(True, True, torch.bfloat16), (True, False, torch.float32), (False, True, torch.float32)],
)
def test_autocast_computes_in_bf16_only_where_that_is_fast(monkeypatch, fast, enabled, expected):
    monkeypatch.setattr(runtime, "fast_bf16", lambda device: fast)
    ones = torch.ones(4, 4)
    with runtime.autocast("cpu", enabled):
        assert (ones @ ones).dtype == expected
    assert (ones @ ones).dtype == torch.float32


def test_fast_bf16_is_what_the_processor_says():
    answer = runtime.fast_bf16("cpu")
    assert isinstance(answer, bool)
    if sys.platform == "linux" and "x86" in os.uname().machine:
        with open("/proc/cpuinfo") as file:
            flags = file.read().split()
        assert answer == ("avx512_bf16" in flags or "amx_tile" in flags)
    assert runtime.fast_bf16("mps") is False


# --------------------------------------------------------------------------------- seeds and threads


def test_generator_repeats_by_its_seed():
    first, again, other = (torch.rand(5, generator=runtime.generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("seed", [1.5, "7", None, True, -1, 2**63])
def test_generator_refuses_what_is_no_seed(seed):
    with pytest.raises(ValueError, match="a seed must be a whole number"):
        runtime.generator(seed)


def test_set_threads_sets_and_tells():
    before = torch.get_num_threads()
    try:
        assert runtime.set_threads(2) == 2 == torch.get_num_threads()
        with pytest.raises(ValueError, match="a whole number of at least 1, not 0"):
            runtime.set_threads(0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_set_threads_by_itself_follows_the_environment_and_the_machine(monkeypatch):
    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert runtime.set_threads() == 3
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert 1 <= runtime.set_threads() <= os.cpu_count()
    finally:
        torch.set_num_threads(before)


# ------------------------------------------------------------------------------- progress and memory


def test_progress_is_silent_for_quick_work(capsys):
    assert list(runtime.progress(range(5), description="quick")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr() == ("", "")


def test_progress_shows_a_bar_for_slow_work(capsys):
    seen = []
    for item in runtime.progress(iter(range(4)), total=4, description="slow", unit="picture", after=0.05):
        time.sleep(0.6)  # longer than the shortest time between two drawings of the bar
        seen.append(item)
    out, err = capsys.readouterr()
    assert seen == [0, 1, 2, 3]
    assert out == ""
    assert "slow" in err and "/4" in err and "picture" in err


def test_progress_may_be_left_early():
    closed = []

    def items():
        try:
            yield from range(100)
        finally:
            closed.append(True)

    bar = runtime.progress(items(), total=100)
    assert next(bar) == 0
    bar.close()
    del bar
    assert closed == [True]


def test_peak_memory_counts_what_was_held_for_a_moment():
    code = (
        "from mmlesson import runtime; before = runtime.peak_memory_gb(); block = b'x' * 300_000_000; del block;"
        "print(before, runtime.peak_memory_gb())"
    )
    before, after = map(float, python(code).split())
    # this process, which holds torch, is larger by far: its peak must not be taken for the child's
    assert 0.002 < before < 0.2
    assert 0.29 < after - before < 0.4


def test_what_compiled_code_writes_is_muted_and_pythons_errors_are_not(capfd):
    with pytest.raises(ValueError, match="an error"), runtime.muted():
        os.write(2, b"a line of C++")
        raise ValueError("an error")
    os.write(2, b"afterwards")
    assert capfd.readouterr().err == "afterwards"
