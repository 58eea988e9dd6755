"""The project's pages, taken apart: code blocks, inline code, headings, links and commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "deploy").rglob("*.md")),
]
PROGRAMS = {"make", "car", "python", "pip", "kubectl", "promtool", "curl", "docker", "."}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
        words: its words, as a shell would split them.
        whole: it stands in a code block and must parse as written; inline code may be shortened.
    """

    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return shlex.join(self.words)


def name_of(page: Path) -> str:
    """The page's path from the project's folder."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each code block."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def inline_code(page: Path) -> list[str]:
    """What stands between single backticks, on one line or wrapped."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """Targets of the links that do not leave the project."""
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if "://" not in link]


def commands(page: Path) -> list[Command]:
    """Every command of a page: in code blocks, and as inline code."""
    block_lines = [line for language, text in blocks(page) for line in command_lines(language, text)]
    inline = [code for code in inline_code(page) if re.match(r"(make|car|python -m) [\w-]+", code)]
    return [
        *(Command(tuple(shlex.split(line, comments=True)), True) for line in block_lines),
        *(Command(tuple(shlex.split(line)), False) for line in inline),
    ]


def command_lines(language: str, text: str) -> Iterator[str]:
    """The commands of a code block: lines after a prompt, or all lines if the first one is a command."""
    lines = text.replace("\\\n", " ").splitlines()
    if language == "console":
        yield from (line[2:] for line in lines if line.startswith("$ "))
    elif not language and lines and lines[0].split()[:1] and lines[0].split()[0] in PROGRAMS:
        yield from (line for line in lines if line.strip())
