"""train/run.py and train/checkpoint.py, which all recipes share, on a network of one layer."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmlesson import cli, gates, runtime
from mmlesson.gates import AssetError
from mmlesson.train import checkpoint, run
from mmlesson.train.run import TrainStep, train


@dataclass(frozen=True)
class Recipe(run.Recipe):
    learning_rate: float = 0.1
    noise: float = 0.1


class Training(run.Training):
    """A straight line through noisy points, with batch norm, whose running statistics have to be kept too."""

    name = "pocket-line"
    evaluation = "line"

    def __init__(self, recipe, device="cpu", width=2):
        super().__init__(recipe, device)
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            model = torch.nn.Sequential(torch.nn.BatchNorm1d(width), torch.nn.Linear(width, 1))
        optimizer = run.adamw(model, recipe.learning_rate, recipe.weight_decay, betas=(0.9, 0.98))
        self.form, self.parts = {"width": [width]}, {"model": model, "optimizer": optimizer}

    def begin(self, first_step, state):
        self.began = first_step

    def take_step(self, step, progress):
        generator = runtime.generator((self.recipe.seed << 32) + step)
        x = torch.randn(self.recipe.batch_size, 2, generator=generator)
        target = x.sum(1, keepdim=True) + self.recipe.noise * torch.randn(len(x), 1, generator=generator)
        loss = (self.model(x) - target).square().mean()
        return run.descend(loss, self.optimizer, self.model.parameters()), {"progress": progress}

    def evaluate(self):
        return {"weight": self.model[1].weight.sum().item()}

    def save(self, folder):
        gates.write_atomically(folder / "weight.txt", str(self.model[1].weight.tolist()).encode())


SHORT = Recipe(steps=6)


def taken(training: run.Training, state: Path | None = None, stop: int | None = None) -> list[TrainStep]:
    """The steps of a training, to its end, or left after `stop` of them."""
    steps, generator = [], train(training, state)
    for step in generator:
        steps.append(step)
        if len(steps) == stop:
            break
    generator.close()
    return steps


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def logged(state: Path) -> list[TrainStep]:
    return [TrainStep(**json.loads(line)) for line in (state / "log.jsonl").read_text().splitlines()]


def without_clock(steps: list[TrainStep]) -> list[TrainStep]:
    return [replace(step, seconds=0.0) for step in steps]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> SimpleNamespace:
    """A training that nothing interrupted."""
    state, training = tmp_path_factory.mktemp("whole"), Training(SHORT)
    steps = taken(training, state)
    return SimpleNamespace(state=state, steps=steps, weights=training.model.state_dict())


# ----------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    "values, complaint",
    [
        ({}, "give one of the two"),
        ({"minutes": 1, "steps": 1}, "give one of the two"),
        ({"minutes": 0}, "minutes must be a number above 0, not 0"),
        ({"minutes": -1.0}, "above 0"),
        ({"minutes": math.nan}, "minutes must be a number above 0, not nan"),
        ({"minutes": math.inf}, "minutes must be a number above 0, not inf"),
        ({"steps": 0}, "steps must be a whole number of at least 1, not 0"),
        ({"steps": -1}, "at least 1, not -1"),
        ({"steps": 2.5}, "whole number"),
        ({"steps": True}, "whole number"),
        ({"steps": 1, "workers": -1}, "workers must be a whole number from 0 to 64, not -1"),
        ({"steps": 1, "workers": 1000}, "from 0 to 64, not 1000"),
        ({"steps": 1, "seed": -1}, "seed must be a whole number"),
        ({"steps": 1, "batch_size": 0}, "batch_size"),
        ({"steps": 1, "learning_rate": math.nan}, "learning_rate must be"),
        ({"steps": 1, "warmup": 1.0}, "warmup"),
    ],
)
def test_senseless_recipes_are_refused_with_a_sentence(values, complaint):
    with pytest.raises(ValueError, match=complaint):
        Recipe(**values)


def test_zero_is_a_number_of_workers_and_a_seed():
    recipe = Recipe(steps=1, workers=0, seed=0, warmup=0.0, weight_decay=0.0)
    assert (recipe.workers, recipe.seed) == (0, 0)


def test_learning_rate_rises_and_falls():
    recipe = Recipe(steps=1000, learning_rate=2.0, warmup=0.1)
    rates = np.array([run.rate_at(step / 1000, recipe) for step in range(1001)])
    assert (rates[:1000] > 0).all() and rates.max() == pytest.approx(2.0) and rates.argmax() == 100
    assert (np.diff(rates[:101]) >= 0).all() and rates[0] < 0.05 and rates[50] == pytest.approx(1.0)
    assert (np.diff(rates[100:]) < 0).all() and rates[550] == pytest.approx(1.0)  # half way down
    assert rates[1000] == pytest.approx(0, abs=1e-12) == run.rate_at(1.7, recipe)
    assert run.rate_at(0, replace(recipe, warmup=0.0)) == pytest.approx(2.0)


# ------------------------------------------------------------------------------------------- steps


def test_steps_say_what_happened_and_are_logged(whole):
    assert [step.step for step in whole.steps] == [1, 2, 3, 4, 5, 6]
    shares = [number / 6 for number in range(6)]
    assert [step.learning_rate for step in whole.steps] == [run.rate_at(share, SHORT) for share in shares]
    assert [step.details for step in whole.steps] == [{"progress": share} for share in shares]
    seconds = [step.seconds for step in whole.steps]
    assert 0 < seconds[0] and seconds == sorted(seconds)
    assert whole.steps[-1].loss < whole.steps[0].loss and all(step.heldout == {} for step in whole.steps)
    assert logged(whole.state) == whole.steps


def test_same_seed_same_weights(whole):
    again = Training(SHORT)
    assert without_clock(taken(again)) == without_clock(whole.steps), "without a folder, too"
    assert same(again.model.state_dict(), whole.weights)
    assert taken(Training(replace(SHORT, seed=1)), stop=1)[0].loss != whole.steps[0].loss


def test_a_training_by_the_clock_ends_with_it():
    assert len(taken(Training(Recipe(minutes=1e-9)))) == 1


def test_the_thermometer_changes_nothing(whole, tmp_path):
    training = Training(replace(SHORT, evaluate_every=0.0))
    steps = taken(training, tmp_path)
    assert all(step.heldout.keys() == {"weight"} for step in steps) and logged(tmp_path) == steps
    assert same(training.model.state_dict(), whole.weights)


# ------------------------------------------------------------------------------- stopping, resuming


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_stopped_and_resumed_equals_uninterrupted(whole, tmp_path, how):
    state = tmp_path / "state"
    if how == "closed":
        first = taken(Training(SHORT), state, stop=2)
    else:  # what counts is the last checkpoint, after step 2; the log has a step more, and half of another one
        going = train(Training(replace(SHORT, checkpoint_every=0.0)), tmp_path / "first")
        first = [next(going), next(going)]
        shutil.copytree(tmp_path / "first", state)
        with open(state / "log.jsonl", "a") as log:
            log.write(json.dumps({"step": 3, "seconds": 9.0, "learning_rate": 0.1, "loss": 9.0}) + '\n{"step": 4, "sec')
    training = Training(replace(SHORT, checkpoint_every=1e9, evaluate_every=1e9))  # these may change
    rest = taken(training, state)
    assert training.began == 2 and without_clock(first + rest) == without_clock(whole.steps)
    assert rest[0].seconds > first[-1].seconds, "the clock goes on"
    assert same(training.model.state_dict(), whole.weights), "running statistics among them"
    stored = load_file(state / "state.safetensors")
    assert same(stored, load_file(whole.state / "state.safetensors")), "and the moments of the optimizer"
    moments = {name.split(".")[-1] for name in stored if name.startswith("optimizer.")}
    assert moments == {"step", "exp_avg", "exp_avg_sq"}
    assert logged(state) == first + rest, "no step is in the log twice"


def test_a_log_without_its_checkpoint_begins_again(whole, tmp_path):
    shutil.copy(whole.state / "log.jsonl", tmp_path)
    assert logged(tmp_path)[0] == whole.steps[0]
    steps = taken(Training(SHORT), tmp_path, stop=1)
    assert logged(tmp_path) == steps


def test_a_finished_training_has_no_more_steps(whole):
    training = Training(SHORT)
    assert list(train(training, whole.state)) == [] and same(training.model.state_dict(), whole.weights)
    assert not hasattr(training, "began"), "no data are made for nothing"


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch_size": 8}, {"learning_rate": 0.5}, {"noise": 0.0}])
def test_a_checkpoint_of_another_recipe_is_refused(whole, change):
    before = (whole.state / "state.safetensors").read_bytes()
    (what,) = change
    with pytest.raises(ValueError, match=rf"checkpoint of another recipe \(different: {what}\).*--fresh"):
        next(train(Training(replace(SHORT, **change)), whole.state))
    assert (whole.state / "state.safetensors").read_bytes() == before


def test_a_checkpoint_of_another_form_is_refused(whole):
    with pytest.raises(ValueError, match="different: the form of the model"):
        next(train(Training(SHORT, width=3), whole.state))


def rewritten(source: Path, target: Path, tensors=lambda tensors: tensors, **recipe) -> None:
    """A copy of a checkpoint with other fields in its recipe (None: without them), or other tensors, and no sum."""
    from safetensors import safe_open

    with safe_open(source / checkpoint.CHECKPOINT, "pt") as file:
        metadata = file.metadata()
    del metadata["sha256"]
    stored = {**json.loads(metadata["recipe"]), **recipe}
    metadata["recipe"] = json.dumps({name: value for name, value in stored.items() if value is not None})
    save_file(tensors(load_file(source / checkpoint.CHECKPOINT)), target / checkpoint.CHECKPOINT, metadata=metadata)


def test_new_fields_take_their_defaults_and_old_ones_are_ignored(whole, tmp_path):
    rewritten(whole.state, tmp_path, noise=None, radius=3.0)
    assert list(train(Training(SHORT), tmp_path)) == []
    with pytest.raises(ValueError, match="different: noise"):
        next(train(Training(replace(SHORT, noise=0.2)), tmp_path))


@pytest.mark.parametrize("damage", ["empty", "half", "foreign", "less", "more"])
def test_a_damaged_checkpoint_is_one_sentence(whole, tmp_path, damage):
    file = tmp_path / "state.safetensors"
    content = (whole.state / "state.safetensors").read_bytes()
    if damage == "foreign":
        save_file({"weight": torch.zeros(2)}, file)
    elif damage == "less":
        rewritten(whole.state, tmp_path, lambda found: {k: v for k, v in found.items() if k != "model.1.bias"})
    elif damage == "more":
        rewritten(whole.state, tmp_path, lambda found: found | {"second_optimizer.0.step": torch.zeros(())})
    else:
        file.write_bytes(content[: {"empty": 0, "half": len(content) // 2}[damage]])
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"state\.safetensors, the checkpoint, is damaged .*--fresh"):
        next(train(Training(SHORT), tmp_path))
    assert file.read_bytes() == before


# ------------------------------------------------------------------------------------- the command


@pytest.fixture
def command(tmp_path, monkeypatch):
    """`mmlesson train line`: returns the exit status."""
    monkeypatch.setattr(runtime, "set_threads", lambda: 1)

    def call(training=Training, **options) -> int:
        given = {"minutes": 120.0, "steps": 6, "seed": None, "workers": None, "device": "cpu", "fresh": False}
        folders = {"state": tmp_path / "state", "out": tmp_path / "out"}
        return run.main(SimpleNamespace(**{**given, **folders, **options}), Recipe, training)

    return call


def test_the_command_trains_saves_and_saves_again_what_is_done(command, whole, tmp_path, capsys):
    assert command() == 0
    output = capsys.readouterr().out
    assert "step      1 " in output and "pictures/s  loss " in output and "progress 0" in output
    assert f"`mmlesson eval line --model local-dir:{tmp_path / 'out'}` measures it." in output
    saved = (tmp_path / "out" / "weight.txt").read_text()
    assert saved == str(whole.weights["1.weight"].tolist())
    shutil.rmtree(tmp_path / "out")
    assert command() == 0
    assert "had already ended" in capsys.readouterr().out
    assert (tmp_path / "out" / "weight.txt").read_text() == saved


def test_the_thermometer_is_always_printed(capsys, monkeypatch):
    assert run.report(Training(replace(SHORT, evaluate_every=0.0)), None)
    assert len(capsys.readouterr().out.splitlines()) == 6
    step = TrainStep(3, 60.0, 0.1, 0.5, {"l1": 0.25}, {"codes": 182})
    assert (
        run.sentence(step, SHORT) == "   1.0 min  step      3     1 pictures/s  loss 0.500  l1 0.25  held-out codes 182"
    )


def test_the_command_interrupted_says_so_and_goes_on(command, whole, tmp_path):
    class Interrupted(Training):
        def take_step(self, step, progress):
            if step == 2:
                raise KeyboardInterrupt
            return super().take_step(step, progress)

    with pytest.raises(KeyboardInterrupt) as stop:
        command(Interrupted)
    assert str(stop.value).startswith(f"{tmp_path / 'state' / 'state.safetensors'} holds the work so far")
    assert not (tmp_path / "out").exists()
    assert command() == 0
    assert without_clock(logged(tmp_path / "state")) == without_clock(whole.steps)
    assert (tmp_path / "out" / "weight.txt").read_text() == str(whole.weights["1.weight"].tolist())


def test_interrupted_before_the_first_step_it_promises_nothing(command):
    class Interrupted(Training):
        def begin(self, first_step, state):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="No step was finished yet"):
        command(Interrupted)


def test_the_command_starts_again(command, tmp_path):
    assert command(steps=1) == 0
    with pytest.raises(ValueError, match="different: seed"):
        command(seed=5, steps=1)
    assert command(seed=5, steps=1, fresh=True) == 0
    assert [step.step for step in logged(tmp_path / "state")] == [1]


@pytest.mark.parametrize(
    "options", [{"workers": -1}, {"workers": 1000}, {"steps": 0}, {"steps": None, "minutes": math.inf}, {"out": "file"}]
)
def test_what_is_wrong_is_refused_before_anything_is_deleted(command, tmp_path, options):
    assert command() == 0
    before = {path: path.read_bytes() for path in (tmp_path / "state").iterdir()}
    (tmp_path / "file").write_text("no folder")
    if "out" in options:
        options = {"out": tmp_path / "file" / "model"}
    with pytest.raises((ValueError, AssetError)):
        command(fresh=True, **options)
    assert {path: path.read_bytes() for path in (tmp_path / "state").iterdir()} == before


def recipe_of(monkeypatch, *arguments: str) -> run.Recipe:
    """The recipe that a command line of `mmlesson train` runs."""
    asked = []
    monkeypatch.setattr(
        run, "main", lambda options, recipe, training: asked.append(run.command_recipe(options, recipe))
    )
    assert cli.main(["train", *arguments]) == 0
    return asked[0]


def test_the_command_line_names_a_recipe(monkeypatch):
    judge = recipe_of(monkeypatch, "judge", "--steps", "3")
    assert (judge.seed, judge.model, judge.steps, judge.minutes, judge.workers) == (1, "judge-clip", 3, None, 1)
    assert recipe_of(monkeypatch, "judge", "--seed", "0").seed == 0, "0 is a seed, too"
    assert recipe_of(monkeypatch, "judge", "--seed", "7").seed == 7
    pocket = recipe_of(monkeypatch, "clip")
    assert (pocket.seed, pocket.model, pocket.minutes, pocket.steps) == (0, "pocket-clip", 120.0, None)
    assert recipe_of(monkeypatch, "vqgan", "--workers", "0", "--seed", "3").workers == 0


CTRL_C = """
import functools, sys
from mmlesson import cli
from mmlesson.train import clip
clip.FORMS["pocket-clip"] = {
    "embed_dim": 16,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "image_size": 64},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
clip.Recipe = functools.partial(clip.Recipe, batch_size=16, curriculum=(20, 40))
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of a terminal")
def test_ctrl_c_in_a_terminal(tmp_path):
    state = tmp_path / "state"
    options = ["--steps", "1000000", "--state", str(state), "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-c", CTRL_C, "train", "clip", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        line = process.stdout.readline()  # of the first step
        assert "step" in line, process.communicate()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: also to the worker that renders scenes
        _, errors = process.communicate()
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 130 and "Traceback" not in errors
    assert "stopped. " in errors and "holds the work so far. The same command goes on from there." in errors
    assert (state / "state.safetensors").exists() and logged(state)[0].step == 1
