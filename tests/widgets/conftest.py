"""Fixtures of the widgets' tests: stand-ins for the models, and the charts and works that a test can watch."""

import numpy as np
import pytest
from widget_tools import PROMPT, FakePainting, Gate, Model, drawing_threads, painting_threads, until

from mmlesson.teach import figures
from mmlesson.teach.widgets import work


@pytest.fixture
def clip():
    return Model()


@pytest.fixture
def charts(monkeypatch):
    """What each chart was asked to show, in order."""
    asked = []
    real = figures.probabilities

    def recorded(image, labels, probabilities, title="", cosines=None):
        values = np.asarray(probabilities, dtype=float)
        shown = {"image": image, "labels": list(labels), "probabilities": values, "title": title, "cosines": cosines}
        asked.append(shown)
        return real(**shown)

    monkeypatch.setattr(figures, "probabilities", recorded)
    return asked


@pytest.fixture
def every_step(monkeypatch):
    """Every step of a work is shown, however fast the steps and however busy the machine."""
    monkeypatch.setattr(work, "pause_after", lambda preparing: 0)


@pytest.fixture
def paintings(monkeypatch, every_step):
    """Every painting that was begun, in order. Their threads have ended afterwards."""
    from mmlesson import painter

    begun = []

    def paint(prompts, clip, vqgan, prior="auto", start=None, **options):
        begun.append(FakePainting(prompts, vqgan, **options))
        return begun[-1]

    monkeypatch.setattr(painter, "paint", paint)
    yield begun
    for _ in range(3):  # a work that waits for another begins when that one ends
        for thread in painting_threads():
            thread.stop()
        for painting in begun:
            painting.allow(1000)
    until(lambda: not painting_threads())


@pytest.fixture
def gate(dalle, monkeypatch, every_step):
    """Lets `dalle` draw one code after the other. The threads have ended afterwards."""
    gate = Gate(dalle.generate_steps)
    monkeypatch.setattr(dalle, "generate_steps", gate)
    yield gate
    gate.is_open = True
    for _ in range(3):
        for thread in drawing_threads():
            thread.stop()
        gate.allow(1000)
    until(lambda: not drawing_threads())


@pytest.fixture(scope="session")
def vqgan():
    """Untrained, 4×4 codes of 20."""
    from mmlesson.vqgan import VQGANConfig, new_vqgan

    config = VQGANConfig(image_size=32, n_codes=20, dim=4, channels=(16, 16, 32), discriminator=16)
    made = new_vqgan(config, seed=3)
    made.sha256 = "ab" * 32
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def dalle():
    """Untrained. Its weights are so large that no two codes are equally likely, and it has read few words."""
    import torch

    from mmlesson.dalle import DALLEConfig, new_dalle, pieces_of

    pieces = pieces_of([PROMPT, "a dog on a red one"])
    config = DALLEConfig(pieces, text_length=12, n_codes=20, grid=4, dim=32, layers=2, heads=2, vqgan="ab" * 32)
    made = new_dalle(config, seed=1)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return made.eval().requires_grad_(False)
