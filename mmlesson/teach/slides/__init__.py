"""`mmlesson slides`: each lesson as a deck that opens from a file, in any browser, with the network off.

A deck is made from the notebook's own cells and stored outputs; nothing is executed and no sentence is copied. The
metadata `slideshow` of a cell says what becomes of it:

- `slide_type`: "slide" and "subslide" begin a slide, "fragment" goes on the same slide and appears on a key press,
  no type goes on the same slide, "skip" is left out. A cell tagged `solution` is always left out.
- `notes`: {"minutes": 4, "say": "…", "ask": "…"} in a cell that begins a slide. The speaker sees them (key S), and
  below them the whole text of the cells. They are metadata and not cells, so that the lesson reads in JupyterLab as
  before: a cell of type "notes" would stand between the prose and the code that it announces.
- `keep`: which sentences of a text cell are shown, each by how it begins; "-" are its list items, "|" is its table.
  Without it: the first sentence of each paragraph, what says **Notice**, lists and tables.
- `code`: true, false, or the statements that are shown, each by how it begins. Without it: of a cell that draws a
  figure nothing, of another cell what is neither an import nor an assertion.
- `prints`: true in a cell that draws a figure, where what it prints belongs on the slide too.
- `rows`: of a figure with rows of pictures, how many each slide shows, as [1, 2]; where all at once are too small.
- `cover`: true in the cell whose figure stands on the title slide.

Pictures on slides are those that cells draw: of a picture in the text, a slide shows the text alternative.
What is too long for one slide goes on over the next ones.
"""

from .build import Deck, run_slides

__all__ = ["Deck", "run_slides"]
