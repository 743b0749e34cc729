"""report.html: one file that needs nothing else, for tables, charts, comparisons and a blind vote."""

import base64
import json
from pathlib import Path
from typing import Any

from . import charts, table
from .methods import slug
from .pictures import INPUT, TRUTH

PAGE = Path(__file__).parent / "page"
KINDS = ("still", "profile", "loop")


def write(report: dict[str, Any], pictures: Path, out: Path) -> None:
    """Renders a report with the WebP pictures below `pictures` into `out`."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((PAGE / "report.html.j2").read_text(encoding="utf-8"))
    crfs = report["protocol"]["crf"]
    page = template.render(
        report=report,
        styles=(PAGE / "page.css").read_text(encoding="utf-8"),
        script=(PAGE / "page.js").read_text(encoding="utf-8"),
        data=embedded(shown(report, pictures)),
        tables=[(crf, table.headings(report), table.body(report, crf)) for crf in crfs],
        charts=[drawing for name in table.shown_metrics(report) if (drawing := charts.chart(report, name))],
        palette=charts.colours(report),
        published={row["method"] for row in report["published"]},
        marks={style: place for place, style in table.STYLES.items()},
    )
    fresh = out.with_name(f"{out.name}.part")
    fresh.write_text(page, encoding="utf-8", errors="backslashreplace")
    fresh.replace(out)


def embedded(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")


def shown(report: dict[str, Any], pictures: Path) -> dict[str, Any]:
    """What the page's script needs: names, and every picture once as {clip: {crf: {method: {kind: data URI}}}}."""
    protocol = report["protocol"]
    clips: dict[str, Any] = {}
    for clip in protocol["clips"]:
        truth = read_pictures(pictures / TRUTH / "crf0" / clip)
        versions = {}
        for crf in protocol["crf"]:
            folders = {"input": pictures / INPUT / f"crf{crf}" / clip}
            folders |= {name: pictures / slug(name) / f"crf{crf}" / clip for name in report["methods"]}
            versions[str(crf)] = {name: found for name, at in folders.items() if (found := read_pictures(at))}
        if truth:
            clips[clip] = {"truth": truth, "crf": versions}
    return {
        "title": protocol["title"],
        "created": report["created"],
        "methods": list(report["methods"]),
        "clips": clips,
    }


def read_pictures(folder: Path) -> dict[str, str]:
    """The pictures of one clip as data URIs by kind."""
    found = {}
    for kind in KINDS:
        path = folder / f"{kind}.webp"
        if path.is_file():
            found[kind] = "data:image/webp;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    return found
