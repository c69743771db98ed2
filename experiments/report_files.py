"""The report's tables as Markdown, CSV and one self-contained HTML page."""

import base64
import csv
import html
import re
from pathlib import Path

from experiments import tables
from experiments.tables import Table

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .6rem; text-align: left; white-space: nowrap; }
th { background: #f5f5f5; } td b { color: #b00; } img { max-width: 100%; height: auto; }
code { font-size: 12px; background: #f5f5f5; padding: 0 .2rem; } figcaption { color: #555; font-size: 13px; }
"""


def report_tables(cells: list[dict]) -> list[Table]:
    """All tables that have rows, in their order."""
    makers = (tables.accuracy_table, tables.comparison_table, tables.class_table, tables.condition_table)
    return [table for table in (make(cells) for make in makers) if table.rows]


def write_markdown(path: Path, cells: list[dict], command: str) -> None:
    """Writes table2.md."""
    lines = []
    for level, table in enumerate(report_tables(cells)):
        lines += [f"{'#' if level == 0 else '##'} {table.title}", "", *(f"{note}\n" for note in table.notes)]
        lines += [_markdown_row(table.head), "|" + "---|" * len(table.head), *map(_markdown_row, table.rows), ""]
    lines.append(f"Made by `{command}` from the cells' results.json.")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_csv(path: Path, cells: list[dict]) -> None:
    """Writes table2.csv: the runs, and which of them (from 1) failed."""
    rows = tables.table_rows(cells)
    num_runs = max(len(row["runs"]) for row in rows)
    names = ["dataset", "setting", "model", "init", "epochs", "batch", "steps"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        runs = list(map(str, range(1, num_runs + 1)))
        writer.writerow(["data", *names[1:], *runs, "mean", "std", "failed runs", "report_mean"])
        for row in rows:
            runs = [f"{accuracy:.4f}" for accuracy, _ in row["runs"]] + [""] * (num_runs - len(row["runs"]))
            failed = " ".join(str(i) for i, (_, bad) in enumerate(row["runs"], 1) if bad)
            means = [tables.text(row["mean"]), tables.text(row["std"]), failed, tables.text(row["report"])]
            writer.writerow([*(row[name] for name in names), *runs, *means])


def write_html(path: Path, cells: list[dict], figures: dict[str, Path], command: str) -> None:
    """Writes report.html with its figures inside.

    Args:
      figures: {caption: PNG file}, shown after the first two tables.
    """
    made = report_tables(cells)
    body = [_html_table(table) for table in made[:2]]
    for caption, file in figures.items():
        data = base64.b64encode(file.read_bytes()).decode("ascii")
        caption = html.escape(caption)
        image = f'<img src="data:image/png;base64,{data}" alt="{caption}">'
        body.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    body += [_html_table(table) for table in made[2:]]
    body.append(f"<p>Made by <code>{html.escape(command)}</code> from the cells' results.json.</p>")
    head = f'<meta charset="utf-8"><title>F-Conv against plain convolutions</title><style>{_STYLE}</style>'
    lines = ["<!DOCTYPE html>", f'<html lang="en"><head>{head}</head><body>',
             "<h1>F-Conv against plain convolutions</h1>", *body, "</body></html>"]  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _html_table(table):
    def row(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{_html_text(cell)}</{tag}>" for cell in cells) + "</tr>"

    notes = "".join(f"<p>{_html_text(note)}</p>" for note in table.notes)
    rows = "\n".join(row(cells, "td") for cells in table.rows)
    head = row(table.head, "th")
    return f"<h2>{html.escape(table.title)}</h2>{notes}<table><thead>{head}</thead><tbody>\n{rows}</tbody></table>"


def _html_text(words):
    words = re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(words))
    return re.sub(r"\*\*(.*?)\*\*", r"<b>\1</b>", words)


def _markdown_row(cells):
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
