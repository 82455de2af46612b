"""`mmlesson lab --present`: the lessons for a teacher in front of a class.

Large type, no solutions, each widget at the top of its section, and slow cells that show their stored result at once.

- `copies.py` makes the presenter's copies of the lessons, and what is stored of each cell: its outputs and its seconds.
- `lab.py` writes the settings, the kernel and the page's script for a JupyterLab that presents.
- `page.js` runs in the page: large pictures, and the key T, which runs a replayed cell truly.
- `replay.py` runs in the kernel: it decides which cells replay, and computes them behind what is shown.
- `names.py` reads which names a cell uses and sets, and so what it needs of other cells.
- `again.py` has a cell that runs again begin as it did the first time.
- `watch.py` shows how far a cell is that runs truly.
"""
