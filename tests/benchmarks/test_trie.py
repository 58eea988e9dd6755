"""The trie of a SID table says of every prefix what may follow it, and nothing else."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.models.trie import Trie


@given(
    table=st.integers(1, 4).flatmap(
        lambda levels: st.lists(
            st.lists(st.integers(0, 3), min_size=levels, max_size=levels), min_size=1, max_size=30
        )
    )
)
def test_the_trie_holds_exactly_the_prefixes_of_the_table(table: list[list[int]]) -> None:
    levels = len(table[0])
    trie = Trie(torch.tensor([[3] * levels, *table]))
    level = {(): 0}  # prefix -> node
    for depth in range(levels):
        below: dict[tuple[int, ...], int] = {}
        for prefix, node in level.items():
            tokens, nodes, real = trie.children_of(depth, torch.tensor(node))
            assert len(tokens) == trie.widest[depth]
            expected = sorted({sid[depth] for sid in table if tuple(sid[:depth]) == prefix})
            assert tokens[real].tolist() == expected
            below |= {(*prefix, code): at for code, at in zip(expected, nodes[real].tolist(), strict=True)}
        assert sorted(below.values()) == list(range(trie.sizes[depth + 1]))
        level = below
    for prefix, node in level.items():
        uids, _, real = trie.children_of(levels, torch.tensor([[node]]))
        assert uids[real].tolist() == [uid for uid, sid in enumerate(table, 1) if tuple(sid) == prefix]
