"""A widget of lesson 4, DALL-E: pictures of a sentence, drawn code by code while one watches."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING

import ipywidgets
from PIL import Image

from mmlesson import gates
from mmlesson.teach.widgets import parts
from mmlesson.teach.widgets.always import answer_always, say_that_it_waits
from mmlesson.teach.widgets.answer import GROWING_SIDE, Answer
from mmlesson.teach.widgets.codes import NOT_DRAWN, drawn_so_far
from mmlesson.teach.widgets.frame import framed
from mmlesson.teach.widgets.work import Desk, LongWork, reason

if TYPE_CHECKING:
    from mmlesson.clip import CLIP
    from mmlesson.dalle import DALLE
    from mmlesson.vqgan import VQGAN

LOOK = 0.15  # seconds that a look at the drawing takes, about, so that it moves at two frames a second and more
DRAWN_SIDE = 144  # pixels of one of several pictures that are drawn together
MOST_DRAWN = 16


def sampler_box(
    dalle: DALLE,
    vqgan: VQGAN,
    clip: CLIP | None = None,
    prompt: str = "a cat on a blue background",
    n: int = 8,
    seed: int = 0,
) -> ipywidgets.VBox:
    """Pictures of a sentence, drawn code by code while one watches, under settings of the learner's own.

    They are drawn in a thread, so that the kernel is free for other cells. A kernel draws or paints one thing at a
    time: Draw stops what this box or another one does. Closing the box ends its drawing. With a `clip` the finished
    pictures are ordered by their cosines with the sentence, the best first. `prompt`, `n` and `seed` are what the
    fields hold at first. Raises ValueError for a prompt that is no text, `n` outside 1…16 or `seed` outside
    0…2**31-1, AssetError where `dalle` learned the codes of another VQGAN.
    """
    from mmlesson.dalle import GUIDANCE, TEMPERATURE

    dalle.check_vqgan(vqgan)
    parts.check_text("prompt", prompt)
    gates.whole_number("n", n, 1, MOST_DRAWN)
    gates.whole_number("seed", seed, 0, parts.MOST_SEED)

    field = parts.text_field("Prompt", prompt, "a cat on a blue background", "What to draw")
    count = parts.number_field("Pictures", n, 1, MOST_DRAWN, "How many pictures to draw together")
    seed_field = parts.number_field("Seed", seed, 0, parts.MOST_SEED, "Another number gives other pictures")
    top_k = parts.number_field(
        "Top-k", 0, 0, dalle.config.n_codes, "Draw only from this many of the likeliest codes; 0 means from all"
    )
    temperature = parts.slider(
        "Temperature", TEMPERATURE, 0.1, 2, 0.1, "Below 1, likely codes come more often; above 1, rare codes do"
    )
    guidance = parts.slider(
        "Guidance", GUIDANCE, 1, 4, 0.25, "Above 1, the prompt counts more: the codes move away from those of no prompt"
    )
    start = parts.button("Draw", "play", "Draw pictures from the beginning", main=True)
    stop = parts.button("Stop", "stop", "End the drawing and show how far it came", disabled=True)
    answer = Answer(clip)

    def set_buttons(work: LongWork | None) -> None:
        stop.disabled = work is None or work.is_over

    desk = Desk(answer, "codes", functools.partial(_show_drawing, answer), set_buttons)
    answer.say("Press “Draw” and watch. Other cells can run meanwhile: “Stop” answers all the same.")

    @answer.handles
    def begin() -> list[str]:
        desk.leave()
        text = parts.prompt_in(field)
        dalle.text_tokens(text)  # a warning comes here, into the note: from the thread it would land under any cell
        if clip is not None:
            clip.tokenize([text])
        options = {
            "temperature": temperature.value,
            "top_k": None if top_k.value == 0 else top_k.value,
            "guidance": guidance.value,
        }
        draw = functools.partial(dalle.generate_steps, text, count.value, seed_field.value, **options)
        desk.start(DrawWork, draw, text, dalle.config.grid**2, vqgan, clip)
        return [text]

    start.on_click(begin)
    stop.on_click(desk.stop)
    answer_always(stop)
    say_that_it_waits(answer, start)
    fields = parts.half_fields(count, seed_field, top_k)
    controls = [field, fields, temperature, guidance, parts.row(start, stop)]
    box = framed("Draw what a sentence says", *controls, answer)
    desk.leave_with(box)
    return box


class DrawWork(LongWork):
    """Pictures that a DALL-E draws in a thread: the steps are those of `generate_steps`.

    `images` are what the last look showed, `scores` their cosines with the prompt once they are ranked.
    """

    kind = "drawing"

    def __init__(
        self,
        begin: Callable[[], Iterator],
        show: Callable[[DrawWork], None],
        prompt: str,
        total: int,
        vqgan: VQGAN,
        clip: CLIP | None,
    ):
        self._vqgan = vqgan
        self._clip = clip
        self.images: list[Image.Image] = []
        self.scores: list[float] = []
        self._next = 0  # the picture that the next look draws first
        self._share = 1  # how many pictures a look draws
        super().__init__(begin, show, prompt, total)  # which starts the thread

    def prepare(self) -> None:
        """Draw some of the pictures, and others at the next look: all at once would take longer than a frame may."""
        codes = self.last.codes
        chosen = [(self._next + place) % len(codes) for place in range(self._share)]
        began = monotonic()
        drawn = drawn_so_far(self._vqgan, codes[chosen])
        took = (monotonic() - began) / len(chosen)
        if not self.images:
            self.images = [Image.new("RGB", drawn[0].size, NOT_DRAWN) for _ in codes]
        for place, image in zip(chosen, drawn, strict=True):
            self.images[place] = image
        self._next = (chosen[-1] + 1) % len(codes)
        self._share = max(1, min(len(codes), int(LOOK / max(took, 1e-6))))

    def finish(self) -> None:
        from mmlesson.dalle import rerank

        if self.last is None:
            return
        self.images = drawn_so_far(self._vqgan, self.last.codes)
        if self._clip is not None and self.last.filled == self.total:
            ranked = rerank(self.images, self.prompt, self._clip)
            self.images = ranked.images
            self.scores = ranked.scores


def _show_drawing(answer: Answer, work: DrawWork) -> None:
    """The pictures as far as they are drawn, and how far that is."""
    n = len(work.images)
    filled = work.last.filled
    far = f"code {filled} of {work.total}"
    shown = []
    for place, image in enumerate(work.images):
        score = f"{work.scores[place]:.3f}" if work.scores else ""
        alt = f"Picture {place + 1} of {n}"
        if score:
            alt += f", cosine {score}"
        elif filled < work.total:
            alt += f", {far}"
        shown.append((image, f"{alt}: {work.prompt}", score))
    answer.show_pictures(shown, GROWING_SIDE if n == 1 else DRAWN_SIDE, columns=4)

    if not work.is_over:
        left = math.ceil(work.seconds / filled * (work.total - filled))
        answer.say_progress(f"At {far}, {left} s left.")
    elif filled < work.total:
        answer.say(f"Stopped at {far}{reason(work)}. What is grey was not drawn.")
    else:
        done = f"Done: {parts.counted(n, 'picture')} in {parts.duration(work.seconds)}."
        if work.scores:
            scores = f"{work.scores[0]:.3f} to {work.scores[-1]:.3f}"
            answer.say(done, f"The best is first. Below each is its cosine with the sentence, {scores}.")
        else:
            answer.say(done)
