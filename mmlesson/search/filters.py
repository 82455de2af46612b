"""Filters of a search, in SQL: what they may ask for, and a sentence where one cannot be read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mmlesson.models import reading

# what a filter may ask for; the types are pyarrow's. A caption may be missing.
COLUMNS = {"path": "string", "size": "int64", "modified": "int64", "sha256": "string", "caption": "string"}


@contextlib.contextmanager
def readable(where: str) -> Iterator[None]:
    """LanceDB's errors about a filter become a ValueError that says what a filter is; so does what is no text."""
    if not isinstance(where, str):
        raise ValueError(f"where is a filter as a text, such as \"caption LIKE '%cat%'\", not {where!r:.60}.")
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        given = repr(where if len(where) <= 100 else where[:100] + "…")
        raise ValueError(
            f"where={given} is not a filter in SQL over {', '.join(COLUMNS)} ({reading.short(error)})."
        ) from error


def check(where: str) -> None:
    """Raises ValueError where a text is no filter. It asks an empty table, so that this is known before any work."""
    import lancedb
    import pyarrow as pa

    schema = pa.schema([pa.field(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])
    with readable(where):
        lancedb.connect("memory://").create_table("pictures", schema=schema).search().where(where).to_arrow()
