"""The paper's own figures (its Tables 1 and 6), to stand beside measured ones."""

import functools
import json
from pathlib import Path
from typing import Any

from .metrics import KNOWN


@functools.cache
def _stored() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))


def source() -> str:
    """Where the figures were published."""
    return _stored()["source"]


def rows(dataset: str, crf: int) -> list[dict[str, Any]]:
    """{"method", "crf", "metrics": {our name: value}} for a test set at a CRF; empty where none was published."""
    names = {metric.published: metric.name for metric in KNOWN.values() if metric.published}
    return [
        {"method": row["method"], "crf": crf, "metrics": {names[key]: value for key, value in row["metrics"].items()}}
        for row in _stored()["rows"]
        if row["dataset"] == dataset and row["crf"] == crf
    ]
