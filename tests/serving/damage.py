"""Damage to files, as a failing disk does it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCAL_HEADER = 30  # bytes of a zip entry before its name


@contextmanager
def flipped(path: Path, offset: int | None = None) -> Iterator[None]:
    """Flip the lowest bit of a byte (default: the middle one) for a while."""
    position = path.stat().st_size // 2 if offset is None else offset
    flip(path, position)
    try:
        yield
    finally:
        flip(path, position)


def flip(path: Path, offset: int) -> None:
    """Flip the lowest bit of a byte."""
    with path.open("r+b") as stream:
        stream.seek(offset)
        [byte] = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([byte ^ 1]))


def offset_of(archive: Path, name: str) -> int:
    """The middle byte of a stored file's content within an archive."""
    with zipfile.ZipFile(archive) as opened:
        entry = opened.getinfo(name)
    assert entry.compress_type == zipfile.ZIP_STORED
    return entry.header_offset + LOCAL_HEADER + len(name) + entry.file_size // 2
