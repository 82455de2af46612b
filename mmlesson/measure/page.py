"""MEASURED.md: all stored tables as one page, with what they mean. `mmlesson measured --write MEASURED.md`."""

from __future__ import annotations

from mmlesson import gates
from mmlesson.measure import stored
from mmlesson.measure.parts import PARTS

HEAD = """# Measured

This page is written by `mmlesson measured --write MEASURED.md` from the tables in `data/measured/`. Do not edit it.

Quality is measured on held-out scenes: one in ten combinations of things and backgrounds was kept out of all training
by a hash of their names. *Untrained* is the same measurement on a fresh network of the same shape, and *random codes*
on pictures decoded from random codes: it shows that the measurement can fail. Speed is measured against a peer that
runs in turns with ours, in one process, with the same weights and files. A *bar* is what a figure has to reach before
the course is published; a figure without one is *reported*. Each table carries the sha256 of the weights and of the
code that it was measured with, and a test says which tables have to be made again. `mmlesson eval all --write` and
`mmlesson bench all --write` make all of them.
"""

# heading, then (part, what it is and how it was measured, what its figures do not say)
SECTIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "CLIP": (
        (
            "eval clip",
            "The pocket CLIP classifies scenes of one object among all 597 concepts, and finds scenes of two "
            "objects by their captions.",
            "",
        ),
        (
            "bench clip",
            "JPEG files of 640×480 pixels are embedded by us and by the loop in open_clip's README, in turns.",
            "",
        ),
        (
            "eval judge",
            "The judge is a second CLIP of another architecture. It names generated pictures, and takes no part in "
            "making or choosing them.",
            "",
        ),
    ),
    "Image search": (
        (
            "eval search",
            "Scenes with different captions are searched by these captions and by six other wordings. Queries about "
            "things that no picture shows calibrate and measure when nothing fits.",
            "",
        ),
        (
            "bench search",
            "Exact search is compared with faiss-cpu and scikit-learn on the same vectors. The second table shows "
            "indexes of four sizes: milliseconds for one query, exact and approximate, and what they cost to make "
            "and keep.",
            "The package searches exactly up to 200,000 pictures, and approximately in larger collections.",
        ),
        (
            "bench scale",
            "The same files are indexed by one process, by Ray with one and with two workers, and in the way of "
            "clip-retrieval: embeddings to files, then faiss. The second table shows indexes of millions of vectors, "
            "searched approximately: seconds to open one, milliseconds for one query, seconds to make the cells. "
            "Memory counts the mapped pages that the queries touched; own memory is without them.",
            "The cluster is up before the time starts, because a cluster that exists is used. The start of its "
            "worker counts in `overhead`, and not in pictures a second.",
        ),
    ),
    "Painting: VQGAN + CLIP": (
        (
            "eval paint",
            'Held-out prompts "a X on a Y background", three seeds each, are painted from random codes with the '
            "default settings; then the judge names what was painted.",
            "Two CLIPs that were trained on the same scenes share blind spots, and the judge gives a smear a name. So "
            "`named` asks for the outline of the thing as well, without a network: few of these paintings have it. "
            "`--sheet build/paint` writes them without their names, for people to read. Prior and guide know scenes of "
            "one large object in the middle of the picture; prompts of two objects are not for them.",
        ),
        (
            "eval vqgan",
            "The VQGAN turns scenes into 12×12 codes of 1,024 and back.",
            "",
        ),
        (
            "bench paint",
            "`paint` is compared with a plain loop in the manner of the public VQGAN+CLIP scripts, with the same "
            "weights and the same number of cutouts.",
            "The plain loop shows every cutout to both towers of the guide; ours deals the cutouts out between them. "
            "`ratio_undealt` is without this saving.",
        ),
    ),
    "Drawing: DALL-E": (
        (
            "eval dalle",
            "DALL-E draws held-out prompts of one object, and of two objects that were never shown together; the judge "
            "names what was drawn.",
            "DALL-E knows a narrower world than CLIP: one object in the middle, or two side by side or one above the "
            "other, each of one size. So few drawings are wrong that re-ranking can hardly gain anything; lesson 4 "
            "shows what it gains where drawings are bold.",
        ),
        (
            "bench dalle",
            "DALL-E is compared with itself without a cache, and with the GPT-2 of `transformers` with the same "
            "weights.",
            "",
        ),
    ),
    "Lessons": (
        (
            "bench lessons",
            "Every lesson runs from a fresh kernel to its end.",
            "",
        ),
    ),
}


def page() -> str:
    """The text of MEASURED.md. Raises AssetError where a stored table is damaged."""
    blocks = [HEAD.strip()]
    for heading, parts in SECTIONS.items():
        blocks.append(f"## {heading}")
        for name, how, limits in parts:
            blocks += [f"### `mmlesson {name}`", how, *_table(name)]
            if limits:
                blocks.append(limits)
    return "\n\n".join(blocks) + "\n"


def _table(name: str) -> list[str]:
    if not stored.path_of(name).is_file():
        return [f"Not measured yet: `mmlesson {name} --write` measures it."]
    found = stored.read(name)
    tables = [found.report.table(), found.report.second_table(), *found.report.notes]
    where = f"{found.report.title}. Measured on {found.date}: {found.machine}."
    return [where, *filter(None, tables)]


def main(options) -> int:
    """`mmlesson measured [--write FILE]`: says which tables are stale or miss a bar (status 1), or writes the page."""
    if options.write is not None:
        gates.write_atomically(options.write, page().encode())
        print(f"{options.write}: {len(PARTS)} parts")
        return 0
    faults = [fault for name in PARTS if (fault := stored.stale(name))]
    for name in PARTS:
        if stored.path_of(name).is_file():
            faults += [f"mmlesson {name}: {figure} misses its bar" for figure in stored.read(name).report.missed()]
    print("\n".join(faults) or "all stored tables are fresh, and meet their bars")
    return int(bool(faults))
