"""Texts as people wrote them: without HTML.

The rule: entities become characters, also those of markup that was escaped as a whole (`&lt;b&gt;`); tags and
comments are dropped, and so is what scripts and styles hold; any white space is one blank. A tag between two
words keeps them apart, unless it only formats (`H<sub>2</sub>O`).
"""

from __future__ import annotations

import html
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.compute as pc

SIGNS = r"<[/!?a-zA-Z]|&[#a-zA-Z]|[\s\x{00a0}]{2}|[\t\r\n\x{00a0}]"  # of what the rule would change
INLINE = {"a", "abbr", "b", "em", "font", "i", "mark", "s", "small", "span", "strong", "sub", "sup", "u"}
UNREAD = {"script", "style"}


class _Words(HTMLParser):
    """Collects the text between tags."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.unread = 0  # elements open whose content is no text

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.unread += tag in UNREAD
        self._separate(tag)

    def handle_endtag(self, tag: str) -> None:
        self.unread -= tag in UNREAD and self.unread > 0
        self._separate(tag)

    def handle_data(self, data: str) -> None:
        if not self.unread:
            self.parts.append(data)

    def _separate(self, tag: str) -> None:
        if tag not in INLINE:
            self.parts.append(" ")


def without_markup(text: str) -> str:
    """A text by the rule in the module's first lines."""
    parser = _Words()
    parser.feed(html.unescape(text))
    parser.close()
    return " ".join("".join(parser.parts).split())


def strip_markup(column: pa.Array) -> pa.Array:
    """A column of texts by the rule; only cells that need it are parsed."""
    needed = pc.fill_null(pc.match_substring_regex(column, SIGNS), False)
    if not pc.any(needed).as_py():
        return column
    changed = [without_markup(text) for text in column.filter(needed).to_pylist()]
    return pc.replace_with_mask(column, needed, pa.array(changed, pa.string()))
