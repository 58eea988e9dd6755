"""`python -m registry`: a door to the commands of `car registry`."""

from __future__ import annotations

from collections.abc import Sequence

from orchestration.registry_cli import app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits."""
    app(args=arguments, prog_name="python -m registry")


if __name__ == "__main__":
    main()
