"""Runs of the command in stretches that are short enough for tests."""

import json
from pathlib import Path

import pytest

from sdatc_cli.app import run
from sdatc_cli.engine import stretch
from tests.e2e.failing import SHORT


@pytest.fixture
def short_stretches(monkeypatch):
    monkeypatch.setattr(stretch, "STRETCH", SHORT)


@pytest.fixture
def sdatc(tiny_models, capfd):
    """Runs the command; returns (exit code, JSON or None, stderr)."""

    def call(source: object, out: Path, *words: object, model: str = "lively"):
        capfd.readouterr()
        settings = ["--model", tiny_models[model], "--steps", 1, "--json"]
        code = run([str(word) for word in ("upscale", "-o", out, *settings, *words, "--", source)])
        said = capfd.readouterr()
        return code, json.loads(said.out) if said.out else None, said.err

    return call
