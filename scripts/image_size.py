"""Print the image's packages by size; `make image-size` pipes this file into a container."""

from __future__ import annotations

import sysconfig
from pathlib import Path

TOP = 15


def size(path: Path) -> int:
    """Bytes of a file or of everything in a folder, links left out."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files if not file.is_symlink())


def main() -> None:
    """Print the largest packages, the rest, and how much of it is byte code."""
    folder = Path(sysconfig.get_path("purelib"))
    packages = sorted(((path.name, size(path)) for path in folder.iterdir()), key=lambda item: -item[1])
    rows = packages[:TOP]
    rows.append(("others", sum(count for _, count in packages[TOP:])))
    rows.append(("all packages", sum(count for _, count in packages)))
    rows.append(("of which byte code", sum(file.stat().st_size for file in folder.rglob("*.pyc"))))
    for name, count in rows:
        print(f"{count / 1e6:8.1f} MB  {name}")


if __name__ == "__main__":
    main()
