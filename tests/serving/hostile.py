"""Bodies that mean harm: near misses of good requests, broken bytes, and JSON at its limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

from common.limits import MAX_BATCH, MAX_BODY_BYTES, MAX_ID

ITEMS = [f"i{i}" for i in range(1, 49)]
KNOWN_OR_NOT = [*ITEMS, "none such"]
TEXTS = [
    "",
    " ",
    "i1",
    "none such",
    "Ünï",
    "🎬" * 20,
    "\ud800",
    "\x00",
    "\x1b[31m\n",
    "'; DROP TABLE",
    "../..",
    "NaN",
]
LONG = ["x" * MAX_ID, "x" * (MAX_ID + 1), "é" * 5_000]
NUMBERS = [0, -1, 1, 2, 10, 100, 101, 2**31, 2**63, -(2**64), 10**400, 1.5, 10.0, 1e308, 5e-324, -0.0]
SPECIAL = [float("nan"), float("inf"), float("-inf")]
SIMPLE: list[Any] = [None, True, False, *TEXTS, *LONG, *NUMBERS, *SPECIAL]
FIELDS = (
    "history",
    "k",
    "thinking",
    "exclude",
    "candidates",
    "explain",
    "actions",
    "rank_by",
    "requests",
    "K",
    "hist\u043ery",
    "__class__",
    "",
)
RAW = [
    *(
        b"",
        b" \n\t",
        b"null",
        b"true",
        b"0",
        b'""',
        b"[]",
        b"{}",
        b"[[]]",
        b"[{}]",
        b"{",
        b"}",
        b"[",
        b'"',
        b"\\",
    ),
    *(b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"NaN", b"-Infinity", b"1e999", b"-", b"'history'", b"<xml/>"),
    *(b"history=i1&k=3", b"--x\r\n\r\n--x--", b"%7B%7D", b'{"history": [],}', b'{"history": []} x'),
    *(b'{"history": [], "history": ["i1"]}', b'{"k": 1, "\\u006b": 2}', b'\xef\xbb\xbf{"history": []}'),
    *(b'{"history": ["\\ud800"]}', b'{"history": ["\\udc00\\ud800"]}', b'{"history": ["\xed\xa0\x80"]}'),
    *(b'{"history": [], "k": ' + b"9" * 5_000 + b"}", b'{"history": [], "k": 1e1}'),
    *(b"[" * 10_000, b'{"a":' * 10_000, b"[" * 9 + b"]" * 9, b'[{"history": ' * 600),
    *('{"history": []}'.encode("utf-16"), '{"history": []}'.encode("utf-32")),
]


def seeded(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - tests repeat themselves on purpose


def bodies(count: int, seed: int) -> Iterator[bytes]:
    """Hostile bodies, the same ones for the same seed; a good part of them is answerable."""
    rng = seeded(seed)
    kinds = (_near_miss, _near_miss, _mutated, _mutated, _raw, _wild, _batch)
    for i in range(count):
        yield _huge(rng) if i % 250 == 249 else rng.choice(kinds)(rng)


def good(rng: Random) -> dict[str, Any]:
    """A request that is answered."""
    request: dict[str, Any] = {
        "history": rng.choices(KNOWN_OR_NOT, k=rng.randrange(6)),
        "k": rng.randrange(1, 6),
    }
    extras = {
        "thinking": rng.randrange(4),
        "exclude": rng.choices(KNOWN_OR_NOT, k=3),
        "candidates": rng.choice([None, [], rng.choices([*ITEMS, "x"], k=5)]),
        "explain": rng.random() < 0.5,
        "actions": [rng.choice([None, 1, 3.5, -2]) for _ in request["history"]],
        "rank_by": "relevance",
    }
    return request | {name: extras[name] for name in extras if rng.random() < 0.4}


def _near_miss(rng: Random) -> bytes:
    request = good(rng)
    for _ in range(rng.randrange(3)):
        request[rng.choice(FIELDS)] = _value(rng, 3)
    if rng.random() < 0.1:
        request.pop("history", None)
    return _dump(rng, request)


def _mutated(rng: Random) -> bytes:
    raw = bytearray(_dump(rng, good(rng)))
    for _ in range(rng.randrange(1, 4)):
        i, width = rng.randrange(len(raw) + 1), rng.randrange(1, 8)
        piece = raw[i : i + width]
        changes = (
            b"",
            bytes(reversed(piece)),
            piece * 3,
            rng.randbytes(width),
            rng.choice([b'"', b"[", b"{", b",", b"\\"]),
        )
        raw[i : i + width] = rng.choice(changes)
    return bytes(raw)


def _raw(rng: Random) -> bytes:
    return rng.choice(RAW)


def _wild(rng: Random) -> bytes:
    return rng.randbytes(rng.randrange(200)) if rng.random() < 0.3 else _dump(rng, _value(rng, 5))


def _batch(rng: Random) -> bytes:
    size = rng.choice([0, 1, 2, 3, 5, MAX_BATCH, MAX_BATCH + 1])
    entries = [rng.choice([good(rng), _value(rng, 3), {"history": [], "k": 0}]) for _ in range(size)]
    return _dump(rng, rng.choice([entries, {"requests": entries}, {"requests": entries, "k": 1}]))


def _huge(rng: Random) -> bytes:
    size = MAX_BODY_BYTES + rng.choice([-40, -1, 0, 1, 50_000])
    shapes = ('{"history": ["%s"]}', '{"%s": 1}', '{"history": [%s"i1"]}', '["%s"]')
    filler = rng.choice(['\\"', "x", '"i1", ', "[", "\\u0000"])
    shape = rng.choice(shapes)
    return (shape % (filler * (size // len(filler))))[:size].encode()


def _value(rng: Random, depth: int) -> Any:
    if depth == 0 or rng.random() < 0.5:
        return rng.choice(SIMPLE)
    if rng.random() < 0.5:
        return [_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice([*FIELDS, *TEXTS]): _value(rng, depth - 1) for _ in range(rng.randrange(3))}


def _dump(rng: Random, value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=rng.random() < 0.7, indent=rng.choice([None, None, 1]))
    return text.encode("utf-8", "surrogatepass")
