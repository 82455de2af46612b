"""What the tests of the widgets share: stand-ins for slow models, and functions that read a widget as a learner does.

There is no browser here: a test sets values and clicks buttons as the front end would, and reads the answers.
"""

import base64
import datetime
import io
import re
import threading
import time
from dataclasses import dataclass

import ipywidgets
import numpy as np
from PIL import Image

PROMPT = "a cat on a blue background"
HANG = 3600  # seconds after which something that a test waits for will never come


# --------------------------------------------------------------------------------------------- stand-ins


class Model:
    """Stands in for a CLIP: it likes the colour that a text names, and has learned few words."""

    name = "stand-in"
    knows = "colours"
    temperature = 0.05
    colours = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}

    def similarity(self, images, texts):
        rows = []
        for image in images:
            means = np.asarray(image.convert("RGB"), dtype=float).mean((0, 1)) / 255
            likes = {word: means @ np.array(rgb) for word, rgb in self.colours.items()}
            rows.append([0.2 + 0.1 * sum(like for word, like in likes.items() if word in text) for text in texts])
        return np.array(rows, dtype=np.float32)

    def classify(self, images, labels, templates=None, temperature=None):
        texts = [templates[0].replace("{}", label) for label in labels]
        logits = self.similarity(images, texts) / (self.temperature if temperature is None else temperature)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)

    def note_on(self, image):
        return "" if np.asarray(image).std() > 1 or np.asarray(image).mean() > 1 else "This picture is all black."

    def tokenize(self, texts):
        return [[0]] * len(texts)

    def unknown_words(self, texts):
        words = (word for text in texts for word in re.findall(r"\w+", text))
        return [word for word in dict.fromkeys(words) if word.startswith("un")]


@dataclass(frozen=True)
class Step:
    """What the widget reads of a step of a painting."""

    index: int
    image: Image.Image
    loss: float
    scores: dict[str, float]


class FakePainting:
    """Stands in for a painting. It makes a step when the test allows one; the last step but one is the best."""

    def __init__(self, prompts, vqgan, steps, seed, cutouts=4):
        self.asked = {"prompts": prompts, "vqgan": vqgan, "steps": steps, "seed": seed, "cutouts": cutouts}
        self.names = [part.split(":")[0].strip() for part in prompts.split("|")]
        self.allowed = threading.Semaphore(0)
        self.begun = 0
        self.made = 0
        self.best = None
        self.is_closed = False
        self.fails = None

    def allow(self, steps: int) -> None:
        self.allowed.release(steps)

    def __iter__(self):
        return self

    def __next__(self):
        if self.made == self.asked["steps"]:
            raise StopIteration
        self.begun += 1
        self.allowed.acquire()
        if self.fails:
            raise self.fails
        self.made += 1
        score = 0.1 * self.made if self.made < self.asked["steps"] else 0.0
        image = Image.new("RGB", (96, 96), (self.made, 0, 0))
        step = Step(self.made, image, 1 - score, {name: score - place for place, name in enumerate(self.names)})
        if self.best is None or step.loss < self.best.loss:
            self.best = step
        return step

    def close(self):
        self.is_closed = True


class Gate:
    """Stands before `generate_steps`: a code is drawn when the test allows one."""

    def __init__(self, steps):
        self.steps = steps
        self.allowed = threading.Semaphore(0)
        self.asked = []
        self.begun = 0
        self.made = 0
        self.is_open = False
        self.fails = None

    def allow(self, codes: int) -> None:
        self.allowed.release(codes)

    def __call__(self, *arguments, **options):
        self.asked.append((arguments, options))
        self.begun = 0
        self.made = 0
        for step in self.steps(*arguments, **options):
            self.begun += 1
            if not self.is_open:
                self.allowed.acquire()
            if self.fails:
                raise self.fails
            self.made += 1
            yield step


def fail_with(error: Exception):
    """A function that raises an error, whatever it is given."""

    def fail(*_, **__):
        raise error

    return fail


# ----------------------------------------------------------------------------------------------- threads


def until(condition) -> None:
    """Wait until a condition holds: AssertionError where it never does."""
    deadline = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.002)


def painting_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "painting"]


def drawing_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "drawing"]


def started(box, paintings, allow: int) -> FakePainting:
    """Press Start; the painting that began, with as many steps made as allowed and the next one under way."""
    count = len(paintings)
    controls(box)["Start"].click()
    until(lambda: len(paintings) > count)
    painting = paintings[-1]
    painting.allow(allow)
    until(lambda: painting.begun == min(allow + 1, painting.asked["steps"]))
    return painting


# -------------------------------------------------------------------------------------- reading a widget


def controls(box) -> dict[str, ipywidgets.Widget]:
    """Every control in a box by its description; two of one description would be an error for a screen reader too."""
    found = {}
    for child in getattr(box, "children", ()):
        inner = controls(child) if hasattr(child, "children") else {}
        if not hasattr(child, "children") and not isinstance(child, ipywidgets.HTML):
            assert child.description.strip(), f"a {type(child).__name__} has no description"
            inner = {child.description: child}
        assert not found.keys() & inner.keys()
        found |= inner
    return found


def shown(box) -> str:
    """All that the answer of a widget holds, as HTML."""
    return "".join(child.value for child in box.children[-1].children)


def sentence(box) -> str:
    return re.sub(r"<[^>]+>", "", box.children[-1].children[0].value)


def note(box) -> str:
    return box.children[-1].children[-1].value


def is_problem(box) -> bool:
    return 'data-kind="problem"' in box.children[-1].children[0].value


def has_picture(box) -> bool:
    return "<img " in shown(box)


def alternative(box) -> str:
    """The text that stands for the picture."""
    return re.search(r'<(?:img|div role="img")[^>]* (?:alt|aria-label)="([^"]*)"', shown(box))[1]


def explored(box) -> list[tuple[str, str]]:
    """The text alternatives and the sources of the large pictures."""
    return [(alt, source) for source, alt in re.findall(r'<img src="([^"]+)" alt="([^"]*)" decoding', shown(box))]


def pixels(source: str) -> np.ndarray:
    """The picture that stands in the source of an image."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split("base64,")[1]))).convert("RGB"))


# --------------------------------------------------------------------------------------------- uploading


def upload(control, name: str, content: bytes) -> None:
    control.value = (
        {
            "name": name,
            "type": "image/png",
            "size": len(content),
            "content": memoryview(content),
            "last_modified": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
        },
    )


def png(picture="red", size=(30, 20), form="PNG", **options) -> bytes:
    """A picture file: of one colour, or of a PIL picture."""
    buffer = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.new("RGB", size, picture)
    image.save(buffer, form, **options)
    return buffer.getvalue()
