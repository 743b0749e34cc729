"""A command whose help groups its options under headings, in plain text."""

from typing import Any

from typer.core import TyperCommand


class PanelCommand(TyperCommand):
    """Shows each option under its `rich_help_panel`, which Typer itself heeds only where Rich draws the help."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes one section a panel, in the order of their first options."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                plain = "Arguments" if param.param_type_name == "argument" else "Options"
                panels.setdefault(getattr(param, "rich_help_panel", None) or plain, []).append(record)
        for title, records in panels.items():
            with formatter.section(title):
                formatter.write_dl(records)
