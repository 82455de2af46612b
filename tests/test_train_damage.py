"""Trainings that are killed, interrupted, out of disk, in pairs, or given damaged files: all goes on."""

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_train_run import SHORT, Recipe, Training, logged, same, taken, without_clock

from mmlesson import doctor, gates, runtime
from mmlesson.gates import AssetError
from mmlesson.models import checkpoints
from mmlesson.train import checkpoint, data, run
from mmlesson.train.run import train

OFTEN = replace(SHORT, steps=12, checkpoint_every=0.0)
posix = pytest.mark.skipif(os.name != "posix", reason="signals, limits and forks of POSIX")


@pytest.fixture(scope="module")
def whole():
    """The steps and the weights of a training that nothing interrupted."""
    training = Training(OFTEN)
    return taken(training), training.model.state_dict()


def goes_on(state: Path, whole) -> None:
    """The next run ends with the weights of an unbroken one, and its log has every step once."""
    steps, weights = whole
    training = Training(OFTEN)
    with checkpoint.alone(state):
        taken(training, state)
    assert same(training.model.state_dict(), weights)
    assert [step.step for step in logged(state)] == [step.step for step in steps]
    assert without_clock(logged(state)) == without_clock(steps)
    assert {path.name for path in state.iterdir()} <= {"state.safetensors", "log.jsonl", "training.lock"}


def in_a_child(work: Callable[[], object]) -> int:
    """Does `work` in a child process; returns its status, negative for a signal. What it raises is status 7."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# ---------------------------------------------------------------------------------------- kill -9

MOMENTS = [(name, count) for name in ("fsync", "replace", "log", "step", "save") for count in (1, 2, 7)]


@posix
@pytest.mark.parametrize("moment, count", MOMENTS)
def test_killed_at_any_moment_it_goes_on(whole, tmp_path, monkeypatch, moment, count):
    """At the `count`th call: before a file is on the disk, before it gets its name, in the log, in a step …"""
    state, calls = tmp_path / "state", []

    def killed(call: Callable) -> Callable:
        def now(*arguments, **options):
            calls.append(1)
            if len(calls) == count:
                if moment == "log":  # half a line is written
                    arguments = (arguments[0], arguments[1][: len(arguments[1]) // 2])
                    call(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return now

    where, name = {
        "fsync": (os, "fsync"),
        "replace": (os, "replace"),
        "log": (gates, "append"),
        "step": (torch.optim.AdamW, "step"),
        "save": (checkpoint, "save"),
    }[moment]

    def work():
        setattr(where, name, killed(getattr(where, name)))
        taken(Training(OFTEN), state)

    assert in_a_child(work) == -signal.SIGKILL
    goes_on(state, whole)


# ---------------------------------------------------------------------------------------- Ctrl-C


class Interrupted(Training):
    """Gets Ctrl-C at a moment of step 5, as from a terminal."""

    def __init__(self, moment: str, times: int = 1):
        super().__init__(replace(OFTEN, checkpoint_every=1e9, evaluate_every=0.0 if moment == "evaluate" else 1e9))
        self.moment, self.times = moment, times
        if moment == "half of the weights":
            self.optimizer.register_step_pre_hook(lambda *arguments: self.stop(self.at == 4) and None)
        if moment == "all of the weights":
            self.optimizer.register_step_post_hook(lambda *arguments: self.stop(self.at == 4))

    def stop(self, now: bool) -> None:
        if now:
            if self.moment == "half of the weights":
                with torch.no_grad():
                    next(self.model.parameters()).add_(1e-9)
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)

    def begin(self, first_step, state):
        self.stop(self.moment == "begin")
        super().begin(first_step, state)

    def take_step(self, step, progress):
        self.at = step
        self.stop(self.moment == "before" and step == 4)
        found = super().take_step(step, progress)
        self.stop(self.moment == "after" and step == 4)
        return found

    def evaluate(self):
        self.stop(self.at == 4)
        return {}


@posix
@pytest.mark.parametrize("moment", ["begin", "before", "all of the weights", "after", "evaluate"])
def test_ctrl_c_at_any_moment_keeps_all_whole_steps(whole, tmp_path, moment):
    with pytest.raises(KeyboardInterrupt) as stopped:
        run.report(Interrupted(moment), tmp_path)
    if moment == "begin":
        assert str(stopped.value) == "No step was finished yet. The same command starts again."
    else:
        assert "holds the work so far. The same command goes on from there." in str(stopped.value)
        with safe_open(tmp_path / checkpoint.CHECKPOINT, "pt") as file:
            assert file.metadata()["step"] == "5", "the step that was under way is finished first"
        assert [step.step for step in logged(tmp_path)] == [1, 2, 3, 4, 5]
    goes_on(tmp_path, whole)


@posix
def test_a_second_ctrl_c_does_not_wait_and_keeps_no_half_step(whole, tmp_path):
    taken(Training(OFTEN), tmp_path, stop=2)
    with pytest.raises(KeyboardInterrupt, match="goes on from there"):
        run.report(Interrupted("half of the weights", times=2), tmp_path)
    with safe_open(tmp_path / checkpoint.CHECKPOINT, "pt") as file:
        assert file.metadata()["step"] == "2", "the checkpoint is from before"
    goes_on(tmp_path, whole)


def test_elsewhere_than_in_the_main_thread_a_training_runs_too(whole):
    training = Training(OFTEN)
    worker = threading.Thread(target=lambda: taken(training))
    worker.start()
    worker.join()
    assert same(training.model.state_dict(), whole[1])


@posix
def test_a_worker_that_renders_does_not_hear_ctrl_c():
    def work():
        data.ignore_interrupts(0)
        os.kill(os.getpid(), signal.SIGINT)

    assert in_a_child(work) == 0


# ---------------------------------------------------------------------------------------- the disk


@posix
@pytest.mark.parametrize("full", ["at once", "in the log", "in the checkpoint"])
def test_a_full_disk_is_a_sentence_and_the_last_checkpoint_is_there(whole, tmp_path, full):
    """A limit on the size of files stands for the disk: first the log does not fit any more, then the checkpoint."""
    import resource

    taken(Training(OFTEN), tmp_path, stop=3)
    before, log = (tmp_path / checkpoint.CHECKPOINT).read_bytes(), (tmp_path / checkpoint.LOG).stat().st_size
    limit = {"at once": 100, "in the log": log + 50, "in the checkpoint": len(before) - 10}[full]
    reader, writer = os.pipe()  # which has no limit

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            taken(Training(OFTEN), tmp_path)
        except AssetError as error:
            os.write(writer, str(error).encode())

    assert in_a_child(work) == 0
    os.close(writer)
    with os.fdopen(reader) as said:
        assert "could not be written: it would be larger than a file may be here." in said.read()
    assert (tmp_path / checkpoint.CHECKPOINT).read_bytes() == before
    goes_on(tmp_path, whole)


@posix
def test_two_trainings_of_one_folder_do_not_run_at_once(tmp_path):
    with checkpoint.alone(tmp_path):

        def work():
            with checkpoint.alone(tmp_path):
                pass

        assert in_a_child(work) == 7
        with pytest.raises(AssetError, match=f"Another process is training in {tmp_path} at this moment"):
            work()
    work()  # and afterwards it is free


# ---------------------------------------------------------------------------------------- damage


def test_a_changed_byte_is_found_wherever_it_is(tmp_path):
    taken(Training(OFTEN), tmp_path, stop=3)
    file = tmp_path / checkpoint.CHECKPOINT
    content = file.read_bytes()
    for place in range(0, len(content), max(1, len(content) // 150)):
        changed = bytearray(content)
        changed[place] ^= 0x41
        file.write_bytes(changed)
        with pytest.raises(
            ValueError, match=r"state\.safetensors, the checkpoint, is damaged .*Start again with --fresh"
        ):
            next(train(Training(OFTEN), tmp_path))
    file.write_bytes(content)
    checkpoint.check(file)


@posix
def test_the_doctor_names_a_damaged_checkpoint_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("MMLESSON_CACHE", str(tmp_path))
    state = checkpoints.folder() / "pocket-clip"
    assert list(doctor._checkpoints()) == []
    taken(Training(OFTEN), state, stop=3)
    assert list(doctor._checkpoints()) == []
    file = state / checkpoint.CHECKPOINT
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    for damaged, why in ((content, "its content is not what was written"), (content[:50], "rror"), (b"", "rror")):
        file.write_bytes(damaged)
        (finding,) = doctor._checkpoints()
        assert (finding.name, finding.status) == ("checkpoint", "warning")
        assert finding.detail.startswith(f"no training can go on from {file} (") and why in finding.detail
        assert finding.remedy.startswith(f'delete the file "{file}": the next training of pocket-clip starts again')
    file.unlink()
    os.mkfifo(file)
    (finding,) = doctor._checkpoints()
    assert "it is a named pipe" in finding.detail
    file.unlink()  # as it says
    assert list(doctor._checkpoints()) == [] and taken(Training(OFTEN), state, stop=3)


def test_a_sum_whose_name_is_damaged_is_not_a_missing_sum(tmp_path):
    taken(Training(OFTEN), tmp_path, stop=3)
    file = tmp_path / checkpoint.CHECKPOINT
    content = file.read_bytes()
    start = content.index(b'"sha256"')
    for place in range(start, start + len(b'"sha256"')):
        changed = bytearray(content)
        changed[place] ^= 0x41
        file.write_bytes(changed)
        with pytest.raises(ValueError, match=r"state\.safetensors, the checkpoint, is damaged"):
            checkpoint.check(file)


def test_a_checkpoint_of_an_earlier_version_has_no_sum_and_goes_on(whole, tmp_path):
    taken(Training(OFTEN), tmp_path, stop=3)
    file = tmp_path / checkpoint.CHECKPOINT
    with safe_open(file, "pt") as stored:
        metadata = stored.metadata()
    assert metadata.pop("sha256")
    save_file(load_file(file), file, metadata=metadata)
    goes_on(tmp_path, whole)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_checkpoint_that_is_not_finite_is_refused(tmp_path, value):
    training = Training(OFTEN)
    with torch.no_grad():
        training.model[1].weight[0, 0] = value
    checkpoint.save(tmp_path, OFTEN, training.form, training.parts, 3, 1.0)
    with pytest.raises(ValueError, match=r"damaged \(model\.1\.weight holds numbers that are not finite\).*--fresh"):
        next(train(Training(OFTEN), tmp_path))


def test_a_training_that_diverges_stops_and_keeps_what_was_good(tmp_path):
    class Diverging(Training):
        def take_step(self, step, progress):
            loss, details = super().take_step(step, progress)
            if step == 4:
                with torch.no_grad():
                    self.model[1].weight.fill_(float("nan"))
                return float("nan"), details
            return loss, details

    with pytest.raises(ValueError, match=rf"The loss of step 5 is nan: .*The last checkpoint in {tmp_path} is .*kept"):
        taken(Diverging(OFTEN), tmp_path)
    checkpoint.check(tmp_path / checkpoint.CHECKPOINT)
    with safe_open(tmp_path / checkpoint.CHECKPOINT, "pt") as file:
        assert file.metadata()["step"] == "4"


@posix
@pytest.mark.parametrize("name", [checkpoint.CHECKPOINT, checkpoint.LOG])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_a_sentence(tmp_path, name, make):
    make(tmp_path / name)
    with pytest.raises((ValueError, AssetError), match=str(tmp_path / name)):
        next(train(Training(OFTEN), tmp_path))


@pytest.mark.parametrize("line", [b"\xff\xfe\n", b"[]\n", b"{}\n", b"7\n", b'{"step": "x"}\n', b"[" * 100_000 + b"\n"])
def test_a_damaged_line_of_the_log_ends_it(whole, tmp_path, line):
    taken(Training(OFTEN), tmp_path, stop=3)
    log = tmp_path / checkpoint.LOG
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:2], line, lines[2]]))
    taken(Training(OFTEN), tmp_path)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, *range(4, 13)]


# ---------------------------------------------------------------------------------------- what messages promise


def command(folder: Path, **options) -> int:
    """`mmlesson train line` with its checkpoint and model in `folder`."""
    given = {"minutes": 120.0, "steps": 6, "seed": None, "workers": None, "device": "cpu", "fresh": False}
    folders = {"state": folder / "state", "out": folder / "out"}
    return run.main(SimpleNamespace(**{**given, **folders, **options}), Recipe, Training)


@pytest.fixture
def ended(tmp_path, monkeypatch) -> Path:
    """The folder of a training of six steps that has ended."""
    monkeypatch.setattr(runtime, "set_threads", lambda: 1)
    assert command(tmp_path) == 0
    return tmp_path


@pytest.mark.parametrize("damage", [b"", b"noise", None])
def test_start_again_with_fresh_helps_a_damaged_checkpoint(ended, damage):
    file, model = ended / "state" / checkpoint.CHECKPOINT, (ended / "out" / "weight.txt").read_text()
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if damage is None else damage)
    with pytest.raises(ValueError, match=r"is damaged .*Start again with --fresh\."):
        command(ended)
    assert (ended / "out" / "weight.txt").read_text() == model, "the model from before is there"
    assert command(ended, fresh=True) == 0
    assert (ended / "out" / "weight.txt").read_text() == model


def test_what_helps_a_checkpoint_of_another_recipe(ended):
    with pytest.raises(ValueError, match="another folder with --state, or start again with --fresh"):
        command(ended, seed=5)
    assert command(ended, seed=5, state=ended / "other") == 0
    assert command(ended, seed=5, fresh=True) == 0
    assert command(ended, seed=5) == 0


def test_more_steps_go_on_where_the_training_had_ended(ended, capsys):
    assert command(ended) == 0
    assert "had already ended. Give more steps or minutes, or --fresh to start again." in capsys.readouterr().out
    assert command(ended, steps=9) == 0
    assert [step.step for step in logged(ended / "state")] == list(range(1, 10))


def test_a_model_that_was_deleted_is_written_again_by_the_same_command(ended):
    model = (ended / "out" / "weight.txt").read_text()
    (ended / "out" / "weight.txt").unlink()
    assert command(ended) == 0 and (ended / "out" / "weight.txt").read_text() == model


def test_what_a_killed_process_left_is_removed(ended):
    left = ended / "state" / ".state-123-abcdef01.safetensors"
    left.write_bytes(b"half")
    assert command(ended) == 0 and not left.exists()


@pytest.mark.parametrize("name", ["weight_decay", "evaluate_every", "checkpoint_every"])
@pytest.mark.parametrize("value", [float("nan"), -1.0, "abc", None, True])
def test_every_number_of_a_recipe_passes_the_gate(name, value):
    with pytest.raises(ValueError, match=name):
        replace(OFTEN, **{name: value})
