"""The one error of this room."""

from __future__ import annotations


class IngestError(ValueError):
    """Data or configuration that cannot be ingested; the message is a sentence for the data's owner."""
