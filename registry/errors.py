"""What can go wrong with a registry, each as one sentence for the person who has to act on it."""

from __future__ import annotations

from common.errors import UserError


class RegistryError(UserError):
    """Base of every error this room raises on purpose; `str(error)` is one clear sentence."""


class StoreError(RegistryError):
    """The store cannot be reached, read or written.

    Attributes:
        name: the object it is about; "" where it is about none.
    """

    def __init__(self, sentence: str, name: str = "") -> None:
        super().__init__(sentence)
        self.name = name


class ObjectMissing(StoreError):  # noqa: N818 - named for what happened
    """There is no object of that name."""


class ObjectDamaged(StoreError):  # noqa: N818
    """An object's bytes do not fit the checksum that the store has of them."""


class ObjectExists(StoreError):  # noqa: N818
    """Another object already holds that name; objects are never overwritten."""


class BundleError(RegistryError):
    """A bundle folder is incomplete, inconsistent or holds a file that a release may not carry."""


class ReleaseError(RegistryError):
    """A release is missing, incomplete, damaged or not allowed."""


class ChannelError(RegistryError):
    """A channel's log is damaged, or an action on it makes no sense."""


class ConflictError(ChannelError):
    """Somebody else moved the channel first."""
