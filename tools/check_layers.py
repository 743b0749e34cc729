"""Fails when a layer imports one it must not know: networks the tool, media the networks, the engine the terminal."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

FORBIDDEN = {
    "models/sdatc_models": ("sdatc_cli", "typer", "rich"),
    "sdatc_cli/media": ("sdatc_models", "sdatc_cli.commands", "sdatc_cli.output", "torch", "typer", "rich"),
    "sdatc_cli/zoo": ("sdatc_cli.commands", "sdatc_cli.output", "typer", "rich"),
    "sdatc_cli/engine": ("sdatc_cli.commands", "sdatc_cli.output", "typer", "rich"),
}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (line, absolute module name) of every import in a file, also those inside functions."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            yield node.lineno, ".".join(part for part in (base, node.module) if part)


def violations() -> Iterator[str]:
    """Yields one line a forbidden import."""
    for folder, banned in FORBIDDEN.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            for line, name in imports(path):
                for word in banned:
                    if name == word or name.startswith(word + "."):
                        yield f"{path.relative_to(ROOT)}:{line}: {folder} must not import {word}"


if __name__ == "__main__":
    found = list(violations())
    print("\n".join(found) or "layers: ok")
    sys.exit(bool(found))
