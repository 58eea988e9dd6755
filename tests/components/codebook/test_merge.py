"""Shards merged in groups, one after the other, are what they are merged at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from car_model.encoding.shards import HEADER, ShardError
from common.digests import tree_digest
from components.codebook.embed import merge


def shard(folder: Path, number: int, of: int = 5, encoder: str = "e") -> dsl.Artifact:
    path = folder / f"shard-{number}-{encoder}"
    path.mkdir(parents=True)
    (path / HEADER).write_text(json.dumps({"number": number, "of": of, "dataset": "d", "encoder": encoder}))
    (path / f"{number}.parquet").write_text(str(number))
    return dsl.Artifact(uri=str(path))


def merged(shards: list[dsl.Artifact], numbers: list[int], target: Path, **earlier: Any) -> dsl.Artifact:
    vectors = dsl.Artifact(uri=str(target))
    merge.python_func(shards=shards, numbers=numbers, vectors=vectors, **earlier)
    return vectors


def test_groups_are_merged_into_the_same_vectors(tmp_path: Path) -> None:
    shards = [shard(tmp_path, number) for number in range(5)]
    whole = merged(shards, [0, 1, 2, 3, 4], tmp_path / "whole")
    first = merged(shards[:3], [0, 1, 2], tmp_path / "first")
    both = merged(shards[3:], [3, 4], tmp_path / "both", earlier=first)
    assert tree_digest(both.path) == tree_digest(whole.path)
    assert both.metadata == whole.metadata == {"shards": 5, "dataset": "d", "encoder": "e"}


def test_a_shard_that_lacks_in_a_group_or_is_of_another_run_is_refused(tmp_path: Path) -> None:
    shards = [shard(tmp_path, number) for number in range(4)]
    with pytest.raises(ShardError, match="of the 5 shards 2 missing"):
        merged(shards[:2], [0, 1, 2], tmp_path / "first")
    first = merged(shards[:3], [0, 1, 2], tmp_path / "second")
    other = [shard(tmp_path, number, encoder="f") for number in (3, 4)]
    with pytest.raises(ShardError, match="the shards come from several runs"):
        merged(other, [3, 4], tmp_path / "third", earlier=first)
