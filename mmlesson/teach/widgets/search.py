"""The widget of lesson 2, image search: pictures found by a sentence, and by pointing at some of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import ipywidgets
from PIL import Image

from mmlesson import gates
from mmlesson.pixels import ImageError, thumbnail
from mmlesson.teach.widgets import parts
from mmlesson.teach.widgets.always import say_that_it_waits
from mmlesson.teach.widgets.answer import Answer
from mmlesson.teach.widgets.frame import framed

if TYPE_CHECKING:
    from mmlesson.search import Hit, Hits, ImageIndex

TILE = 120  # pixels of a found picture's longer side
MOST_TILES = 24
LIKE = 0.5  # the weight of an example of what is wanted, beside the sentence's 1
UNLIKE = -0.5


def search_box(index: ImageIndex, text: str = "a cat", k: int = 8) -> ipywidgets.VBox:
    """Search by a sentence, then by pointing: + or − under a found picture makes it an example.

    The search is for the sum of the sentence (weight 1), each + picture (0.5) and each − picture (-0.5). Where the
    index was calibrated and no picture reaches its threshold, the answer says so; it shows the nearest ones only
    when asked to. Raises ValueError for `k` outside 1…24, a sentence that is no text, or an empty index.
    """
    if not len(index):
        raise ValueError("The index is empty: there is nothing to search. Build one from a folder with pictures.")
    gates.whole_number("k", k, 1, MOST_TILES)
    parts.check_text("text", text)
    field = parts.text_field(
        "Sentence", text, "a cat on a green background", "What the picture shows", continuous_update=False
    )
    count = parts.number_field("How many", k, 1, MOST_TILES, "How many pictures to find (k)")
    button = parts.button("Search", "search", "Find the pictures that fit best", main=True)
    clear = parts.button("No examples", "times", "Forget all + and − examples")
    anyway = ipywidgets.Checkbox(
        False,
        description="Show the nearest even where nothing fits",
        tooltip="Search without the calibrated threshold",
        indent=False,
        layout={"width": "auto"},
    )
    answer = Answer(index.clip)
    tiles = ipywidgets.Box(layout={**parts.ROW, "align_items": "stretch", "overflow": "visible"})
    answer.children = (answer.children[0], tiles, *answer.children[1:])  # below the sentence
    examples: dict[int, tuple[float, Hit]] = {}  # the picture's number in the index -> its weight and the hit

    @answer.handles
    def search() -> list[str]:
        sentence = field.value.strip()
        query = [(1.0, sentence)] if sentence else []
        query += examples.values()
        try:
            if not any(weight > 0 for weight, _ in query):
                raise ValueError(
                    "Say what to look for, or choose a picture with +: “less like this” alone describes nothing."
                )
            hits = index.search(query if examples else sentence, count.value, min_score=-1.0 if anyway.value else None)
        except Exception:
            show([])
            raise
        show(hits)
        answer.say(_found(hits, sentence, [weight for weight, _ in examples.values()]))
        return [sentence] if sentence else []

    def show(hits: Sequence[Hit]) -> None:
        # a tile is made once, then filled, emptied and hidden: a browser that still draws it cannot lose track of it
        tiles.children += tuple(_Tile(point) for _ in range(len(hits) - len(tiles.children)))
        for place, tile in enumerate(tiles.children):
            if place < len(hits):
                weight, _ = examples.get(hits[place].id, (0.0, None))
                tile.show(hits[place], weight)
            else:
                tile.hide()

    def point(hit: Hit, weight: float) -> None:
        if hit.id in examples and examples[hit.id][0] == weight:
            del examples[hit.id]  # a second press takes it back
        else:
            examples[hit.id] = (weight, hit)
        search_again()

    def forget(_event=None) -> None:
        examples.clear()
        search_again()

    def search_again() -> None:
        clear.description = f"No examples (now {len(examples)})" if examples else "No examples"
        search()

    for control in (field, count, anyway):
        control.observe(search, names="value")
    button.on_click(search)
    clear.on_click(forget)
    say_that_it_waits(answer, button, clear)
    search()
    buttons = parts.row(button, clear, anyway)
    return framed("Search by what a picture shows", field, count, buttons, answer)


def _found(hits: Hits, sentence: str, weights: Sequence[float]) -> str:
    """What a search found, in words. `weights` are those of the examples."""
    more = sum(weight > 0 for weight in weights)
    less = sum(weight < 0 for weight in weights)
    wanted = [
        f"“{sentence}”" if sentence else "",
        f"more like {parts.counted(more, 'picture')}" if more else "",
        f"less like {parts.counted(less, 'picture')}" if less else "",
    ]
    what = ", ".join(filter(None, wanted))
    if hits:
        found = f"{what}: {len(hits)} found, scores {hits[0].score:.3f} to {hits[-1].score:.3f}."
        return " ".join(filter(None, [found, hits.note()]))
    limit = f" and fits less than the calibrated {hits.min_score:.3f}" if hits.min_score is not None else ""
    return f"{what}: nothing fits. The nearest picture scores {hits.best:.3f}{limit}."


class _Tile(ipywidgets.VBox):
    """A found picture with its score and caption, and the two buttons that make it an example."""

    def __init__(self, point: Callable[[Hit, float], None]):
        self._picture = ipywidgets.HTML()
        self._hit: Hit | None = None
        self._buttons: dict[float, ipywidgets.Button] = {}
        for sign, weight in (("+", LIKE), ("−", UNLIKE)):
            button = ipywidgets.Button(description=sign, layout={"width": "3.4em", "margin": "1px 4px 1px 0"})
            button.on_click(lambda _, weight=weight: point(self._hit, weight))
            self._buttons[weight] = button
        layout = {"width": f"{TILE + 20}px", "margin": "4px", "justify_content": "space-between"}
        super().__init__([self._picture, parts.row(*self._buttons.values())], layout=layout)

    def show(self, hit: Hit, weight: float) -> None:
        """`weight` is that of the picture as an example, 0 where it is none."""
        self._hit = hit
        self.layout.display = None
        self._picture.value = _figure(hit, weight)
        for each, button in self._buttons.items():
            button.button_style = "info" if each == weight else ""
            button.tooltip = f"{'More' if each > 0 else 'Less'} like this: {_name(hit)}"

    def hide(self) -> None:
        self._hit = None
        self.layout.display = "none"
        self._picture.value = ""


def _figure(hit: Hit, weight: float) -> str:
    """A found picture with its score and caption, as HTML."""
    try:
        image = thumbnail(hit.image, TILE)
        lost = ""
    except ImageError:
        image = Image.new("RGB", (TILE, TILE), "#cccccc")
        lost = " (its file is gone or damaged)"
    name = _name(hit)
    mark = {LIKE: "+ example, ", UNLIKE: "− example, "}.get(weight, "")
    picture = (
        f'<img src="{parts.address(image)}" alt="{parts.escape(name)}{lost}" width="{image.width}"'
        f' height="{image.height}" style="display: block; border-radius: 4px;">'
    )
    caption = f"<b>{mark}{hit.score:.3f}</b> {parts.escape(parts.short(name))}{lost}"
    return f'<figure style="margin: 0; line-height: 1.3;">{picture}<figcaption>{caption}</figcaption></figure>'


def _name(hit: Hit) -> str:
    """What a picture is called: its caption, or its file where the caption is missing or empty."""
    return hit.caption or (hit.path.name if hit.path else f"picture {hit.id}")
