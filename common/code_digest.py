"""The digest of the project's code, which names the caches of steps and labels the image.

`python -m common.code_digest` prints the image's; it needs nothing but Python.
"""

from __future__ import annotations

from pathlib import Path

from common.digests import file_digest, files_digest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("common", "car_model", "ingestion", "validation", "registry", "serving")
CODE = {".py", ".yaml", ".html", ".css", ".xml"}


def code_digest(root: Path = ROOT, rooms: tuple[str, ...] = ROOMS) -> str:
    """Digest of the code that steps call and of the locked packages.

    kfp.local's cache key holds a component's few lines, not the rooms behind them; on a cluster the image
    stands for both.
    """
    found = [path for room in rooms for path in (root / room).rglob("*") if path.suffix in CODE]
    found += [path for path in (root / "requirements" / "run.lock",) if path.is_file()]
    return files_digest({path.relative_to(root).as_posix(): file_digest(path) for path in found})[:16]


def image_digest(root: Path = ROOT) -> str:
    """Digest of all code that an image holds: the rooms, and the components, which call one another."""
    return code_digest(root, (*ROOMS, "components", "orchestration"))


if __name__ == "__main__":
    print(image_digest())
