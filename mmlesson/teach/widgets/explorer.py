"""A widget of lesson 4, DALL-E: what the model expects at a place of a picture, and what another code there changes."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import ipywidgets
import numpy as np

from mmlesson import gates
from mmlesson.pixels import load_image
from mmlesson.teach.widgets import codes as shown_codes
from mmlesson.teach.widgets import parts
from mmlesson.teach.widgets.always import say_that_it_waits
from mmlesson.teach.widgets.answer import Answer
from mmlesson.teach.widgets.frame import framed

if TYPE_CHECKING:
    from torch import Tensor

    from mmlesson.dalle import DALLE
    from mmlesson.vqgan import VQGAN

MOST_CODES = 10  # in the table


def token_explorer(
    dalle: DALLE, vqgan: VQGAN, image=None, prompt: str = "a cat on a blue background", k: int = 8
) -> ipywidgets.VBox:
    """What a DALL-E expects at a place of a picture, given the caption and all codes before it.

    The learner can put another code there. `image` is any picture that `pixels.load_image` takes, or None for what
    `dalle` draws of the prompt with seed 0. The table shows the `k` likeliest codes and the one that is there now.
    "Let it draw the rest" keeps the rows above the chosen one. Raises ValueError for `k` outside 1…10 or an empty
    prompt, ImageError where there is no picture, AssetError where `dalle` learned the codes of another VQGAN.
    """
    dalle.check_vqgan(vqgan)
    gates.whole_number("k", k, 1, MOST_CODES)
    parts.check_text("prompt", prompt)
    if not prompt.strip():
        raise ValueError("prompt is empty: write what the picture shows, such as 'a cat on a blue background'.")
    if image is not None:
        codes = vqgan.encode(load_image(image))[0]  # [grid, grid]
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the explorer itself names unknown words in its note
            codes = dalle.generate(prompt, 1, seed=0)[0]
    explorer = _Explorer(dalle, vqgan, codes, prompt, k)
    explorer.look()
    return explorer.box


class _Explorer:
    """The controls, and the pictures that the learner has made so far: the latest is the last of `history`."""

    def __init__(self, dalle: DALLE, vqgan: VQGAN, codes: Tensor, prompt: str, k: int):
        self.dalle = dalle
        self.vqgan = vqgan
        self.k = k
        self.history = [codes]  # each int64 [grid, grid]
        self.tiles: dict[int, str] = {}  # a code -> its picture, as a data URL
        self.answer = Answer()
        self._make_controls(prompt)

    def _make_controls(self, prompt: str) -> None:
        grid = self.dalle.config.grid
        middle = grid // 2 + 1
        self.field = parts.text_field(
            "Prompt", prompt, "a cat on a blue background", "The caption before the codes", continuous_update=False
        )
        self.row = parts.number_field("Row", middle, 1, grid, f"The row of the place, 1 to {grid} from above")
        self.column = parts.number_field(
            "Column", middle, 1, grid, f"The column of the place, 1 to {grid} from the left"
        )
        self.seed = parts.number_field(
            "Seed", 0, 0, parts.MOST_SEED, "Another number gives another way to draw the rest"
        )
        self.choice = parts.choice_field("Put in", [("", -1)], -1, "A code to put there, the likeliest first")
        self.undo = parts.button("Undo", "undo", "Take the last change back", disabled=True)
        likeliest = parts.button("Put the likeliest here", "star", "Put the likeliest code at the place", main=True)
        put_in = parts.button("Put it here", "pencil", "Put the chosen code at the place")
        rest = parts.button("Let it draw the rest", "play", "Keep the rows above, draw all others anew")

        look = self.answer.handles(self.look_again)
        for control in (self.field, self.row, self.column):
            control.observe(look, names="value")
        handlers = (
            (likeliest, self.put_likeliest),
            (put_in, self.put_chosen),
            (rest, self.draw_rest),
            (self.undo, self.take_back),
        )
        for button, handler in handlers:
            button.on_click(self.answer.handles(handler))
            say_that_it_waits(self.answer, button)
        self.look = look
        places = parts.half_fields(self.row, self.column)
        buttons = [parts.row(likeliest, self.undo), parts.row(self.choice, put_in), parts.row(self.seed, rest)]
        self.box = framed("Which code comes next?", self.field, places, *buttons, self.answer)

    # ------------------------------------------------------------------------------------ what the buttons do

    def look_again(self) -> None:
        self.show(self.history[-1])

    def put_likeliest(self) -> None:
        _, shares = self.expect(self.history[-1])
        self.put(int(shares.argmax()))

    def put_chosen(self) -> None:
        self.put(self.choice.value)

    def put(self, code: int) -> None:
        codes = self.history[-1].clone()
        was = int(codes[self.place])
        if code == was:
            self.show(codes, said=f"Code {code} is there already.")
            return
        codes[self.place] = code
        said = f"Code {code} is there instead of code {was}."
        if self.row.value < self.dalle.config.grid:
            said += f" Choose row {self.row.value + 1} and let it draw the rest, to see what it makes of that."
        self.change(codes, said)

    def draw_rest(self) -> None:
        grid = self.dalle.config.grid
        first = self.row.value  # the first row that is drawn anew
        kept = self.history[-1][: first - 1] if first > 1 else None
        drawn = self.dalle.generate(parts.prompt_in(self.field), 1, seed=self.seed.value, prefix_codes=kept)[0]
        if first == 1:
            what = "The whole picture is"
        elif first < grid:
            what = f"Rows {first} to {grid} are"
        else:
            what = "The last row is"
        self.change(drawn, f"{what} drawn anew, with seed {self.seed.value}.")

    def take_back(self) -> None:
        if len(self.history) > 1:
            self.show(self.history[-2], self.history[-1], "The last change is taken back.")
            self.history.pop()
        self.undo.disabled = len(self.history) == 1

    def change(self, codes: Tensor, said: str) -> None:
        self.show(codes, self.history[-1], said)  # where this raises, nothing has changed
        self.history.append(codes)
        self.undo.disabled = False

    # ------------------------------------------------------------------------------------------- what is shown

    @property
    def place(self) -> tuple[int, int]:
        """The row and the column, from 0."""
        return self.row.value - 1, self.column.value - 1

    def expect(self, codes: Tensor) -> tuple[Tensor, np.ndarray]:
        """The stream up to the place, int64 [length], and the probability of each code there, float64 [n_codes]."""
        config = self.dalle.config
        text_tokens = self.dalle.text_tokens(parts.prompt_in(self.field))  # [1, text_length]
        row, column = self.place
        before = config.text_length + config.grid * row + column
        stream = self.dalle.streams(text_tokens, codes[None].to(self.dalle.device))[0, :before]
        return stream, parts.as_array(self.dalle.next_token(stream)[config.first_code :])

    def show(self, codes: Tensor, before: Tensor | None = None, said: str = "") -> None:
        """The picture of `codes` and what the model expects at the place. `before` are the codes before a change."""
        config = self.dalle.config
        stream, shares = self.expect(codes)
        filled = len(stream) - config.text_length
        likeliest = [int(code) for code in np.argsort(-shares, kind="stable")[: self.k]]
        now = int(codes[self.place])
        rank = int((shares > shares[now]).sum()) + 1
        read = parts.counted(filled, "code")
        where = f"row {self.row.value}, column {self.column.value}"

        shown = self._pictures(codes, before, filled, where)
        shown_codes.add_tiles(self.vqgan, self.tiles, [*likeliest, now])
        stream_html = shown_codes.stream_html(self.dalle, stream)
        table = shown_codes.chances_html(shares, likeliest, now, rank, self.tiles)
        self.answer.show_pictures(shown, shown_codes.EXPLORED_SIDE, columns=2, above=stream_html, beside=table)
        self.choice.options = [
            (f"{number}: code {code}, {parts.fine_percent(shares[code])}", code)
            for number, code in enumerate(likeliest, 1)
        ]
        best = f"the likeliest is code {likeliest[0]}, {parts.fine_percent(shares[likeliest[0]])}"
        self.answer.say(
            said,
            f"At {where}, given the caption and {read}, {best}.",
            f"There now: code {now}, rank {rank:,} of {config.n_codes:,}, {parts.fine_percent(shares[now])}.",
        )

    def _pictures(self, codes: Tensor, before: Tensor | None, filled: int, where: str) -> list:
        """Two pictures with the place outlined, their text alternatives and captions."""
        grid = self.dalle.config.grid
        (after,) = self.vqgan.decode(codes)
        if before is None:
            read = codes.flatten().clone()
            read[filled:] = -1
            (part,) = shown_codes.drawn_so_far(self.vqgan, read.view(1, grid, grid))
            alt = f"What it has read of the picture: {parts.counted(filled, 'code')}"
            both = [
                (part, alt, "what it has read"),
                (after, f"The picture, {where} outlined", "the whole picture"),
            ]
        else:
            (was,) = self.vqgan.decode(before)
            both = [
                (was, f"The picture before, {where} outlined", "before"),
                (after, f"The picture after, {where} outlined", "after"),
            ]
        return [(shown_codes.outlined(image, *self.place, grid), alt, caption) for image, alt, caption in both]
