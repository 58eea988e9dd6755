"""`python -m registry`: the command line of `car registry`."""

from __future__ import annotations

from collections.abc import Sequence

from orchestration.cli import onboarding
from registry.cli.commands import app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    app.add_typer(onboarding)  # without a name: its command joins the others
    app(args=arguments, prog_name="python -m registry")


if __name__ == "__main__":
    main()
