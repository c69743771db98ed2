"""Pages: Markdown templates with marked places, and tables as Markdown, CSV and HTML."""

import base64
import html
import re
from pathlib import Path
from string import Template

from experiments.reporting import tables
from experiments.reporting.tables import Table
from experiments.runs.folder import write_csv, write_text

_TEMPLATES = Path(__file__).with_name("templates")


def fill(path: Path, **marks: str) -> None:
    """Writes a page: the template of the same name with its marks, `$name`, filled."""
    template = Template((_TEMPLATES / path.name).read_text(encoding="utf-8"))
    write_text(path, template.substitute(marks))


def markdown(table: Table) -> str:
    """A table without its title and notes."""
    lines = [[" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in (table.head, *table.rows)]
    head, *rows = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([head, "|" + "---|" * len(table.head), *rows])


def write_markdown(path: Path, cells: list[dict], command: str) -> None:
    """Writes table2.md."""
    parts = []
    for level, table in enumerate(tables.all_tables(cells)):
        parts += [f"{'#' if level == 0 else '##'} {table.title}", *table.notes, markdown(table)]
    parts.append(f"Last made by `{command}` from the results.json of all cells in its output folder.")
    write_text(path, "\n\n".join(parts) + "\n")


def write_table(path: Path, cells: list[dict]) -> None:
    """Writes table2.csv: the runs, and which of them (from 1) failed."""
    rows = tables.table_rows(cells)
    num_runs = max(len(row["runs"]) for row in rows)
    lines = []
    for row in rows:
        runs = [f"{accuracy:.4f}" for accuracy, _ in row["runs"]] + [""] * (num_runs - len(row["runs"]))
        failed = " ".join(str(i) for i, (_, bad) in enumerate(row["runs"], 1) if bad)
        means = [
            tables.text(row["mean"]),
            tables.text(row["std"]),
            failed,
            tables.text(row["report"]),
            row["best_digest"],
            "" if row["distance"] is None else f"{row['distance']:.2f}",
        ]
        lines.append([*(row[name] for name in tables.FIXED), *runs, *means])
    runs = list(map(str, range(1, num_runs + 1)))
    head = [
        "data",
        *tables.FIXED[1:],
        *runs,
        "mean",
        "std",
        "failed runs",
        "report_mean",
        "best_digest",
        "report_standard_errors",
    ]
    write_csv(path, head, lines)


def write_html(path: Path, cells: list[dict], figures: dict[str, Path], command: str, single_file: bool) -> None:
    """Writes report.html: tables, and after the first two of them the figures, {caption: PNG file}.

    It shows the files beside it, or, as a `single_file`, holds them itself.
    """
    made = tables.all_tables(cells)
    shown = [_figure(html.escape(caption), file, single_file) for caption, file in figures.items()]
    body = [*map(_html_table, made[:2]), *shown, *map(_html_table, made[2:])]
    template = Template((_TEMPLATES / path.name).read_text(encoding="utf-8"))
    write_text(path, template.substitute(body="\n".join(body), command=html.escape(command)))


def _figure(caption, file, single_file):
    source = file.name
    if single_file:
        source = f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"
    return f'<figure><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


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
