"""Entry point of `python -m registry`: an error is one sentence on stderr and exit code 1."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from orchestration.cli import onboarding
from registry.cli.commands import app
from registry.errors import RegistryError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits."""
    app.add_typer(onboarding)  # without a name: its command stands beside these
    try:
        app(args=arguments, prog_name="python -m registry")
    except RegistryError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
