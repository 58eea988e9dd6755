"""What can go wrong while serving."""

from __future__ import annotations

from common.errors import UserError


class ServingError(UserError):
    """Base of the package's errors."""


class RequestRefusedError(ServingError):
    """A request was answered with an error, of which `status` is the HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
