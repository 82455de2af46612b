"""What a measurement found, and how it is shown: one table, one line of JSON, one `main` for all parts.

    mmlesson eval clip --json        # quality, on held-out data
    mmlesson bench clip --json       # speed, against a peer
    mmlesson eval all --write        # all parts, stored in data/measured/

The last line of `--json` is one flat object of numbers. Beside each figure of quality stands `untrained_<name>`, the
same figure of a model that has learned nothing: it shows that the measurement can fail.
"""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmlesson.measure import bars
from mmlesson.measure.parts import PARTS, module_of


@dataclass(frozen=True)
class Figure:
    """One measured number, with what it is compared with."""

    name: str
    value: float
    beside: float | None  # what a model that has learned nothing reaches
    bar: bars.Bar | None
    meaning: str
    form: str = ".3f"

    @property
    def verdict(self) -> str:
        """ "met", "MISSED", or "" where there is no bar."""
        if self.bar is None:
            return ""
        return "met" if self.bar.met(self.value) else "MISSED"

    def row(self, with_beside: bool = True) -> str:
        """One line of a Markdown table."""
        beside = "" if self.beside is None else _written(self.beside, self.form)
        bar = "reported" if self.bar is None else str(self.bar)
        values = [f"`{self.name}`: {self.meaning}", _written(self.value, self.form)]
        return f"| {' | '.join(values + [beside] * with_beside + [bar, self.verdict])} |"


@dataclass(frozen=True)
class Report:
    """What one part measured. `part` is a key of `PARTS` or `UNSTORED`; every name of a figure is listed in bars.py."""

    part: str
    title: str  # one line: what was measured on how much
    figures: Mapping[str, float]
    beside: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # {"untrained": {name: value}, …}
    against: str = "untrained"  # heading of the column of what stands beside
    notes: Sequence[str] = ()  # lines below the table
    rows: Sequence[Mapping[str, float]] = ()  # of a second table: one for each size

    def __post_init__(self):
        for values in (self.figures, *self.beside.values()):
            for name, value in values.items():
                bars.known(self.part, name)
                if not math.isfinite(value):
                    raise ValueError(f"{self.part} found {value} for {name}: a figure has to be a finite number.")
        doubled = [name for kind, values in self.beside.items() for name in values if f"{kind}_{name}" in self.figures]
        if doubled:
            raise ValueError(f"{self.part} has two figures of one name: {', '.join(doubled)}.")

    def lines(self) -> list[Figure]:
        """The figures in order, each with what stands beside it and its bar."""
        found = []
        for name, value in self.figures.items():
            line = bars.known(self.part, name)
            beside = next((values[name] for values in self.beside.values() if name in values), None)
            found.append(Figure(name, value, beside, line.bar, line.meaning, line.form))
        return found

    def missed(self) -> list[str]:
        """The names of the figures that miss their bar."""
        return [figure.name for figure in self.lines() if figure.verdict == "MISSED"]

    def table(self) -> str:
        """Markdown: a line for each figure."""
        with_beside = any(values for values in self.beside.values())
        head = ["figure", "measured", *([self.against] if with_beside else []), "bar", ""]
        rule = ["---", "---:", *(["---:"] if with_beside else []), "---", "---"]
        rows = [f"| {' | '.join(cells)} |" for cells in (head, rule)]
        return "\n".join(rows + [figure.row(with_beside) for figure in self.lines()])

    def second_table(self) -> str:
        """Markdown: a line for each of `rows`; "" where there are none."""
        if not self.rows:
            return ""
        names = list(self.rows[0])
        lines = [f"| {' | '.join(name.replace('_', ' ') for name in names)} |", f"|{' ---: |' * len(names)}"]
        for row in self.rows:
            lines.append(f"| {' | '.join(_short(row[name]) for name in names)} |")
        return "\n".join(lines)

    def numbers(self) -> dict[str, float]:
        """One flat object: the figures, then `untrained_<name>` and what else stands beside them."""
        flat = {name: rounded(value) for name, value in self.figures.items()}
        for kind, values in self.beside.items():
            flat |= {f"{kind}_{name}": rounded(value) for name, value in values.items()}
        return flat


def _written(value: float, form: str) -> str:
    return format(value, f"z{form}")  # z: no minus before 0.000


def rounded(value: float) -> float:
    """A whole number as it is, any other to six places."""
    return value if isinstance(value, int) else round(float(value), 6)


def _short(value: float) -> str:
    """A number of the second table: "1,000,000", "0.412", "83.9"."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def main(options) -> int:
    """`mmlesson eval PART` and `mmlesson bench PART`: prints a table; 1 where "all" could not measure a part.

    `options` has `command` ("eval" or "bench"), `part`, `json` and `write`, and what the part itself reads.
    With `json` the last line is one flat JSON object. With `write` the figures are stored in data/measured/.
    """
    if options.part == "all":
        return _measure_all(options.command, options.write)
    name = f"{options.command} {options.part}"
    if options.write:
        from mmlesson.measure import stored

        stored.check_options(PARTS[name], options)  # before the work
    report = importlib.import_module(f"mmlesson.measure.{module_of(name)}").report(options)
    if report is None:  # `eval dalle --settings` prints a table of its own
        return 0
    print(f"{report.title}\n\n{report.table()}", flush=True)
    for block in (report.second_table(), *report.notes):
        if block:
            print(f"\n{block}")
    if options.write:
        print(f"\nstored in {stored.write(report)}; `mmlesson measured --write MEASURED.md` writes the page of tables.")
    if options.json:
        print(json.dumps(report.numbers(), allow_nan=False))
    return 0


def _measure_all(command: str, write: bool) -> int:
    """Every part of a command, each in a process of its own, so that none inherits what another left in memory."""
    failed = []
    for name in PARTS:
        if name.split()[0] != command:
            continue
        print(f"\n== mmlesson {name}", flush=True)
        arguments = [*name.split(), *(["--write"] if write else [])]
        if subprocess.run([sys.executable, "-m", "mmlesson.cli", *arguments], check=False).returncode != 0:
            failed.append(name)
    if failed:
        print(f"\nnot measured: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))
