"""What can go wrong while serving."""

from __future__ import annotations

from common.errors import UserError


class ServingError(UserError, RuntimeError):
    """Serving failed; the message is one sentence that says what and what to do."""
