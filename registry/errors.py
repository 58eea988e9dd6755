"""Errors of a registry. Each message is one sentence for the person who has to act on it."""

from __future__ import annotations

from common.errors import UserError


class RegistryError(UserError):
    """Base of every expected error of a registry."""


class StoreError(RegistryError):
    """The store cannot be reached, read or written."""

    def __init__(self, sentence: str, name: str = "") -> None:
        super().__init__(sentence)
        self.name = name  # the object that the error is about; "" if it is about none


class ObjectMissing(StoreError):  # noqa: N818 - named for what happened
    """There is no object of that name."""


class ObjectDamaged(StoreError):  # noqa: N818
    """An object's bytes do not match the store's checksum."""


class ObjectExists(StoreError):  # noqa: N818
    """An object with other bytes has that name; objects are never overwritten."""


class ReleaseError(RegistryError):
    """A release is missing, incomplete, damaged or not allowed."""


class ChannelError(RegistryError):
    """A channel's log is damaged, or an action on it makes no sense."""


class ConflictError(ChannelError):
    """The channel was moved by somebody else first."""
