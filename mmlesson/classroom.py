"""The commands for a class: `mmlesson grade`, `student`, `online` and `site`, their options and what they do.

`cli.py` gives the gates that its options pass through, and calls `options`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmlesson import gates
from mmlesson.models import assets
from mmlesson.words import shown


@dataclass(frozen=True)
class Gates:
    """The argparse types of `cli.py`: what each refuses becomes the message of its option."""

    path: Callable[[str], Path]
    folder: Callable[[str], Path]
    csv: Callable[[str], Path]
    minutes: Callable[[str], float]
    gigabytes: Callable[[str], float]


def options(commands, gate: Gates) -> None:
    """Add the commands to the command line."""
    grade = commands.add_parser(
        "grade",
        help="a table of who solved what, from a folder of finished notebooks",
        description="Write a CSV with a row for each notebook below a folder and a column for each exercise. Nothing "
        "is executed: the verdicts are those that are stored in the notebooks, and anybody can edit these. With --run "
        "each notebook is executed in a fresh kernel, closed in (on Linux), and its verdicts are new.",
    )
    grade.add_argument("folder", type=gate.path, metavar="FOLDER", help="a folder for each learner, or all notebooks")
    grade.add_argument(
        "--out", type=gate.csv, metavar="FILE", help="where the table goes (.csv); default: it is printed"
    )
    grade.add_argument(
        "--run", dest="execute", action="store_true", help="execute the notebooks; asks first, and says what is at risk"
    )
    grade.add_argument("--yes", action="store_true", help="do not ask: I know what --run does")
    grade.add_argument(
        "--trusted", action="store_true", help="with --run, where no walls can be built: run them with all my rights"
    )
    grade.add_argument("--minutes", type=gate.minutes, default=15.0, metavar="M", help="for each notebook; default: 15")
    grade.add_argument("--memory", type=gate.gigabytes, default=6.0, metavar="GB", help="for each notebook; default: 6")
    grade.set_defaults(run=run_grade)

    student = commands.add_parser(
        "student",
        help="write the learner's and the teacher's edition of the lessons",
        description="Write two editions of the lessons: DIR/student, without solutions, and DIR/teacher, where each "
        "solution is a cell that runs. Both come from the lessons themselves.",
    )
    student.add_argument("--out", type=gate.folder, default="build", metavar="DIR", help="default: build")
    student.set_defaults(run=run_student)

    online = commands.add_parser(
        "online",
        help="write the lessons for Colab and Binder, with links that open them",
        description="Write the lessons with a first cell that installs the course from your repository, and a README "
        "with links that open them on Colab and Binder. Push the folder to the branch `online` of that repository.",
    )
    online.add_argument(
        "--repository", required=True, metavar="URL", help="the course on GitHub: https://github.com/NAME/mmlesson"
    )
    online.add_argument("--tag", required=True, metavar="TAG", help="what is installed: a tag there, such as v0.1.0")
    online.add_argument("--out", type=gate.folder, default="build/online", metavar="DIR", help="default: build/online")
    online.set_defaults(run=run_online)

    site = commands.add_parser(
        "site",
        help="write the course as web pages that need neither a kernel nor a network",
        description="Write the course as pages to read, search and print: the lessons as they ran, the reference, the "
        "model cards, the measured figures, a glossary. They open from a file and from any path on a server.",
    )
    site.add_argument("--out", type=gate.folder, default="build/site", metavar="DIR", help="default: build/site")
    site.set_defaults(run=run_site)


def run_grade(options: argparse.Namespace) -> int:
    from mmlesson.teach.grading import reading, running, table

    count = len(reading.find(options.folder))
    walled = not options.trusted
    if options.execute:
        reason = running.walls_here() if walled else ""
        if reason:
            raise gates.AssetError(
                f"Nothing was run, because {reason}. Without --run the stored verdicts are read; with --trusted the "
                "notebooks run with all your rights, which is right for your own ones only."
            )
        print(running.PROTECTION if walled else running.UNWALLED, file=sys.stderr)
        if not options.yes and not _agrees(f"Run {count} notebooks? Type yes: "):
            raise gates.AssetError("Nothing was run. Without a terminal to ask at, --yes says that you agree.")
    limits = running.Limits(seconds=60 * options.minutes, memory=int(options.memory * 1e9))
    rows = []
    for row in table.grade(options.folder, limits, options.execute, walled):
        rows.append(row)
        if options.execute:
            print(f"{len(rows)} of {count}: {shown(row.notebook)}: {row.run}", file=sys.stderr)
    text = table.as_csv(rows)
    if options.out is None:
        print(text, end="")
    else:
        gates.write_result(options.out, text.encode("utf-8-sig"))  # the mark tells spreadsheets that it is UTF-8
        print(f"{shown(options.out)}: {len(rows)} notebooks")
    if not options.execute:
        print(
            "Nothing was run: these are stored outputs, which anybody can edit. --run executes them.", file=sys.stderr
        )
    return 0


def _agrees(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() == "yes"


def run_student(options: argparse.Namespace) -> int:
    from mmlesson.teach import editions

    for path in editions.write(assets.notebooks_dir(), options.out):
        print(shown(path))
    return 0


def run_online(options: argparse.Namespace) -> int:
    from mmlesson.teach import online

    for path in online.write(assets.notebooks_dir(), options.out, options.repository, options.tag):
        print(shown(path))
    return 0


def run_site(options: argparse.Namespace) -> int:
    from mmlesson.measure import page
    from mmlesson.teach.site import run_site

    made = run_site(assets.notebooks_dir(), page.page(), options.out)
    for complaint in made.warnings:
        print(shown(complaint), file=sys.stderr)
    print(made)
    return 0
