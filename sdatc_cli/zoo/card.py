"""The model card of a model that was put together from public checkpoints."""

from collections.abc import Sequence

from .sources import Fetched


def card(name: str, licence: str, fetched: Sequence[Fetched], report: Sequence[str], untrained: Sequence[str]) -> str:
    """Markdown: what it is made of, what of it is untrained, under which licence."""
    rows = "\n".join(f"| {f.part} | {f.source} | {f.name} | {f.sha256} |" for f in fetched)
    table = f"\n| part | source | file | SHA-256 |\n| --- | --- | --- | --- |\n{rows}\n" if fetched else ""
    lines = "\n".join(f"    {line}" for line in report)
    standing = "\n".join(f"- {module}" for module in untrained) or "- none"
    return f"""# {name}

Put together by sdatc from public checkpoints, in half precision; nothing was trained for it.

## Made of
{table}
{lines}

## Untrained

These modules stand exactly where they start, and add nothing yet:

{standing}

The DCM was not trained together with the rest, and the strength of the motion guidance is not tuned. Nothing about this
model's quality was measured when it was put together. It is a restorer that needs no training, and a start for it:
`sdatc train run --init` this folder.

## Licence

{licence}. The use restrictions of the CreativeML Open RAIL++-M licence hold for what is made with Stable Diffusion's
weights.
"""
