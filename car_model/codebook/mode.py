"""How a run gets its codebook: fit a new one, reuse the champion's, or refresh it."""

from __future__ import annotations

from typing import Literal, cast, get_args

from common.errors import UserError

CodebookMode = Literal["fit", "reuse", "refresh"]
MODES: tuple[str, ...] = get_args(CodebookMode)


class ModeError(UserError):
    """There is no such mode."""


def check_mode(mode: str) -> CodebookMode:
    """The mode of this name. Raises ModeError."""
    if mode not in MODES:
        raise ModeError(f"there is no codebook mode {mode!r}; there are: {', '.join(MODES)}.")
    return cast(CodebookMode, mode)
