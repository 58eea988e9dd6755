"""What fills the image: `python -m scripts.image_size`, within it, prints its packages by size."""

from __future__ import annotations

import sysconfig
from pathlib import Path

SHOWN = 15


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of everything in a folder, by the name of what lies directly in it."""
    return {one.name: _bytes(one) for one in folder.iterdir()}


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files if not one.is_symlink())


def main() -> None:
    """Print the largest packages, the rest, and how much of it all is byte code."""
    folder = Path(sysconfig.get_path("purelib"))
    found = sorted(sizes(folder).items(), key=lambda one: -one[1])
    rest = ("others", sum(size for _, size in found[SHOWN:]))
    compiled = ("of it byte code", sum(one.stat().st_size for one in folder.rglob("*.pyc")))
    for name, size in [*found[:SHOWN], rest, ("all packages", sum(dict(found).values())), compiled]:
        print(f"{size / 1e6:8.1f} MB  {name}")


if __name__ == "__main__":
    main()
