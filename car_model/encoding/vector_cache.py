"""A cache of text vectors on disk: one folder per encoder, one Parquet file per batch of new texts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.digests import json_digest
from common.files import atomic_path


def text_key(text: str) -> str:
    """The key that a text is cached under."""
    return hashlib.sha256(text.encode()).hexdigest()


class VectorCache:
    """Append-only: files are written whole under a content name, so writers never disturb readers.

    The folder is of one encoder; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def load(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """The cached vectors among the texts; damaged files count as missing."""
        if self.folder is None or not self.folder.is_dir():
            return {}
        by_key = {text_key(text): text for text in texts}
        vectors: dict[str, np.ndarray] = {}
        for path in sorted(self.folder.glob("*.parquet")):
            try:
                table = pq.read_table(path, page_checksum_verification=True)
                column = table["vector"].combine_chunks()
                matrix = column.values.to_numpy(zero_copy_only=False).reshape(len(table), -1)
                rows = list(zip(table["key"].to_pylist(), matrix, strict=True))
            except (pa.ArrowException, OSError, KeyError, ValueError, AttributeError):  # damaged somehow
                continue
            vectors.update({by_key[key]: vector for key, vector in rows if key in by_key})
        return vectors

    def add(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep the vectors of texts; atomic, and a no-op without a folder."""
        if self.folder is None or not vectors:
            return
        keys = [text_key(text) for text in vectors]
        matrix = np.stack(list(vectors.values())).astype(np.float32)
        column = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])
        with atomic_path(self.folder / f"{json_digest(keys)[:32]}.parquet") as path:
            pq.write_table(pa.table({"key": keys, "vector": column}), path, write_page_checksum=True)
