"""Limits of a request, which data must keep from the start: ingestion refuses what could not be served."""

from __future__ import annotations

MAX_HISTORY = 10_000  # items of a history
MAX_ID = 256  # characters of an item's id
MAX_TITLE = 1_000  # characters: 100 items with reasons name 700 titles, and TorchServe answers 6.5 MB at most
MAX_K = 100  # recommended items
MAX_BATCH = 16  # requests of one body: what the slowest of them take together stays within a server's timeout
MAX_BODY_BYTES = 256 * 1024  # of one request or a batch
