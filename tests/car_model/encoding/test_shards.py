"""Text vectors made in shards are those made at once, bit for bit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from car_model.encoding.encoder import Encoder, EncoderSpec, embed, load_encoder
from car_model.encoding.shards import Shard, ShardError, merge_shards, shard_texts, write_shard

TEXTS = [f"tea number {number} " + "of a long kind " * (number % 5) for number in range(11)]
TEXTS += TEXTS[:3]  # what is there twice is embedded once


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(replace(EncoderSpec(), precision="fp32"))


def sharded(encoder: Encoder, folder: Path, of: int, texts: list[str] = TEXTS) -> list[Path]:
    folders = [folder / f"{of}-{number}" for number in range(of)]
    for number, part in enumerate(folders):
        write_shard(part, encoder, texts, Shard(number, of, "data", encoder.spec.digest()))
    return folders


@given(texts=st.lists(st.text(max_size=5)), of=st.integers(1, 9))
def test_every_distinct_text_is_in_one_shard_whatever_else_there_is(texts: list[str], of: int) -> None:
    parts = [shard_texts(texts, number, of) for number in range(of)]
    assert sorted(chain.from_iterable(parts)) == sorted(set(texts))
    for number, part in enumerate(parts):
        assert set(part) <= set(shard_texts([*texts, "more"], number, of))


def test_any_number_of_shards_gives_the_same_bits(encoder: Encoder, tmp_path: Path) -> None:
    unsharded = embed(encoder, TEXTS)
    for of in (1, 3, 20):
        target = tmp_path / f"merged-{of}"
        merge_shards(sharded(encoder, tmp_path, of)[::-1], target)
        silent = replace(encoder, model=None)  # type: ignore[arg-type] - nothing is left to encode
        assert np.array_equal(embed(silent, TEXTS, target), unsharded)


def test_shards_that_do_not_fit_together_are_refused(encoder: Encoder, tmp_path: Path) -> None:
    parts, target = sharded(encoder, tmp_path, 3, TEXTS[:5]), tmp_path / "merged"
    with pytest.raises(ShardError, match=r"of the 3 shards 1 missing; embed again\."):
        merge_shards([parts[0], parts[2]], target)
    with pytest.raises(ShardError, match=r"of the 3 shards 2 there twice; embed again\."):
        merge_shards([*parts, parts[2]], target)
    foreign = tmp_path / "other"
    write_shard(foreign, encoder, TEXTS[:5], Shard(1, 3, "other data", encoder.spec.digest()))
    with pytest.raises(ShardError, match="come from several runs"):
        merge_shards([parts[0], foreign, parts[2]], target)
    shutil.rmtree(parts[1])
    with pytest.raises(ShardError, match=r"3-1 is not a shard of vectors \(.*\); embed again\."):
        merge_shards(parts, target)
    assert not target.exists()
