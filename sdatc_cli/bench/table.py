"""The report as Rich tables on the terminal: measured rows, the ground truth's own, and published rows, marked."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .metrics import KNOWN, ranks
from .pictures import TRUTH

STYLES = {1: "bold green", 2: "underline"}
SHOWN = ("s/frame", "fps", "peak MB")
WIDE = 300  # characters, where the output is no terminal
Cell = tuple[str, str, bool]  # text, style, whether a section ends below it


def show(report: dict[str, Any], console: Console) -> None:
    """Prints the tables of each CRF, then what was not run and why."""
    for crf in report["protocol"]["crf"]:
        for table in crf_tables(report, crf, console.width):
            console.print(table)
    if report["published"]:
        console.print(Text("* published by the paper, not measured here", style="dim"))
    if report["protocol"]["vgg_on_one_frame"]:
        told = "quick look: LPIPS-VGG and DISTS on one frame a clip; name them with --metrics to score every frame"
        console.print(Text(told, style="yellow"), soft_wrap=True)
    for name, reason in {**report["not_run"], **report["failed"]}.items():
        console.print(Text(f"not run: {name}: {reason}", style="yellow"), soft_wrap=True)


def crf_tables(report: dict[str, Any], crf: int, width: int) -> list[Table]:
    """One table, or several with some of the columns each where `width` characters cannot hold them."""
    protocol = report["protocol"]
    frames = "all frames" if protocol["frames"] is None else f"first {protocol['frames']} frames"
    every = "" if protocol["every"] == 1 else f", one in {protocol['every']} scored"
    title = f"{protocol['title']}, CRF {crf} ({protocol['kernel']} / 4, {frames}{every})"
    titles, rows = ["method", *headings(report)], body(report, crf)
    sizes = [max(len(text) for text in (titles[k], *(row[k][0] for row in rows))) + 3 for k in range(len(titles))]
    tables = []
    for columns in chunks(sizes, width - 1):
        table = Table(title=None if tables else title, title_justify="left")
        for k in columns:
            table.add_column(titles[k], no_wrap=True, justify="right" if k else "left")
        for row in rows:
            table.add_row(*(Text(row[k][0], style=row[k][1]) for k in columns), end_section=row[0][2])
        tables.append(table)
    return tables


def chunks(sizes: list[int], width: int) -> list[list[int]]:
    """Indices of columns in groups that fit `width`, the first column in every group."""
    groups: list[list[int]] = []
    room = 0
    for k in range(1, len(sizes)):
        if not groups or room < sizes[k]:
            groups.append([0])
            room = width - sizes[0]
        groups[-1].append(k)
        room -= sizes[k]
    return groups


def headings(report: dict[str, Any]) -> list[str]:
    """The titles of the columns after the first."""
    arrows = {"higher": "↑", "lower": "↓", "one": "→1"}
    return [f"{KNOWN[name].label}{arrows[KNOWN[name].better]}" for name in shown_metrics(report)] + list(SHOWN)


def shown_metrics(report: dict[str, Any]) -> list[str]:
    """The metrics for which at least one row has a value."""
    return [name for name in report["metrics"] if any(name in row["metrics"] for row in report["summary"])]


def body(report: dict[str, Any], crf: int) -> list[list[Cell]]:
    """Rows of cells: measured (best and second best marked), ground truth, published."""
    names = shown_metrics(report)
    measured = [row for row in report["summary"] if row["crf"] == crf and row["method"] != TRUTH]
    truth = [row for row in report["summary"] if row["crf"] == crf and row["method"] == TRUTH]
    published = [row for row in report["published"] if row["crf"] == crf]
    places = {name: ranks(name, [row["metrics"].get(name) for row in measured]) for name in names}
    rows: list[list[Cell]] = []
    for position, row in enumerate(measured):
        ends = position == len(measured) - 1
        cells = [(cell(row, name), STYLES.get(places[name][position] or 0, ""), ends) for name in names]
        speeds = [(text, "", ends) for text in speed_cells(row["speed"])]
        rows.append([(row["method"], "", ends), *cells, *speeds])
    for group, label in ((truth, "ground truth"), (published, "{} *")):
        for position, row in enumerate(group):
            ends = position == len(group) - 1
            texts = [label.format(row["method"]), *(cell(row, name) for name in names), *speed_cells({})]
            rows.append([(text, "dim", ends) for text in texts])
    return rows


def cell(row: dict[str, Any], name: str) -> str:
    """A metric's value in its number of digits, or a dash."""
    value = row["metrics"].get(name)
    return "-" if value is None else f"{value:.{KNOWN[name].digits}f}"


def speed_cells(speed: dict[str, Any]) -> list[str]:
    """Seconds a frame, frames a second and peak megabytes, or dashes."""
    if not speed:
        return ["-"] * len(SHOWN)
    peak = speed["peak_bytes"]
    seconds = speed["seconds_per_frame"]
    return [f"{seconds:.3g}", "-" if not speed["fps"] else f"{speed['fps']:.3g}", f"{peak / 1e6:.0f}" if peak else "-"]
