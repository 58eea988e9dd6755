"""The digest of the project's code, which names the caches of steps and labels the image.

`python -m common.code_digest` prints the image's digest; it needs only Python.
"""

from __future__ import annotations

from pathlib import Path

from common.digests import file_digest, files_digest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("common", "car_model", "ingestion", "validation", "registry", "serving", "orchestration")
SUFFIXES = {".py", ".yaml", ".html", ".css", ".xml"}


def code_digest(root: Path = ROOT, packages: tuple[str, ...] = PACKAGES) -> str:
    """Digest of the code that steps call and of the locked packages.

    kfp.local's cache key holds a step's few lines, not the packages that it calls; on a cluster the image
    stands for both.
    """
    files = [path for package in packages for path in (root / package).rglob("*") if path.suffix in SUFFIXES]
    lock = root / "requirements" / "run.lock"
    files += [lock] if lock.is_file() else []
    return files_digest({path.relative_to(root).as_posix(): file_digest(path) for path in files})[:16]


def image_digest(root: Path = ROOT) -> str:
    """Digest of all code that an image holds: the packages, and the steps that call them."""
    return code_digest(root, (*PACKAGES, "components"))


if __name__ == "__main__":
    print(image_digest())
