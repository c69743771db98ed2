"""Files written in one piece: whole, or unchanged."""

import contextlib
import csv
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; the finished file takes its place."""
    temporary = path.with_name(f".{path.name}.part")
    yield temporary
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Writes a text."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, contents: dict) -> None:
    """Writes strict JSON: NaN and infinities become null."""
    write_text(path, json.dumps(_strict(contents), indent=1, allow_nan=False) + "\n")


def write_csv(path: Path, head: list[str], rows: Iterable[list]) -> None:
    """Writes a table."""
    with replaced(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def _strict(value):
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _strict(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(entry) for entry in value]
    return value
