"""Embed a catalogue's texts on several machines: who embeds which text, and one folder of all vectors.

A text's own digest decides its shard, whatever else the catalogue holds and in whatever order. Its vector
does not depend on the texts it is encoded with (`Encoder.encode`), so the merged vectors are the same bits
for every number of shards.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from car_model.encoding.encoder import Encoder, embed
from car_model.encoding.vector_cache import VectorCache, text_key
from common.errors import UserError

HEADER = "shard.json"


class ShardError(UserError):
    """The shards are not those of one catalogue; the message is one sentence."""


@dataclass(frozen=True)
class Shard:
    """The header of a shard's folder."""

    number: int  # 0 to of - 1
    of: int  # how many shards there are
    dataset: str  # digest of the dataset its texts are from
    encoder: str  # digest of the encoder's identity


def shard_texts(texts: Sequence[str], number: int, of: int) -> list[str]:
    """The distinct texts that shard `number` of `of` embeds, in the catalogue's order."""
    return [text for text in dict.fromkeys(texts) if int(text_key(text)[:15], 16) % of == number]


def write_shard(
    folder: Path, encoder: Encoder, texts: Sequence[str], shard: Shard, cache: Path | None = None
) -> int:
    """Embed a shard's part of a catalogue's texts into a folder; returns how many texts that are."""
    folder.mkdir(parents=True)
    own = shard_texts(texts, shard.number, shard.of)
    if own:
        vectors = dict(zip(own, embed(encoder, own, cache), strict=True))
        VectorCache(folder / shard.encoder).add(vectors)
    (folder / HEADER).write_text(json.dumps(asdict(shard)))
    return len(own)


def merge_shards(folders: Sequence[Path], target: Path, numbers: Sequence[int] | None = None) -> list[Shard]:
    """Put the vectors of shards into one folder, which `embed` takes as its cache. Raises ShardError.

    `numbers` are the shards that must be there; None for all.
    """
    shards = []
    for folder in folders:
        try:
            shards.append(Shard(**json.loads((folder / HEADER).read_text())))
        except (OSError, ValueError, TypeError) as error:
            raise ShardError(f"{folder} is not a shard of vectors ({error}); embed again.") from error
    if len({(shard.of, shard.dataset, shard.encoder) for shard in shards}) != 1:
        raise ShardError(
            "the shards come from several runs (number, dataset or encoder differ); embed again."
        )
    counts, of = Counter(shard.number for shard in shards), shards[0].of
    expected = range(of) if numbers is None else numbers
    missing = [str(number) for number in expected if number not in counts]
    double = [str(number) for number, count in sorted(counts.items()) if count > 1]
    if missing or double:
        problem = f"{', '.join(missing)} missing" if missing else f"{', '.join(double)} there twice"
        raise ShardError(f"of the {of} shards {problem}; embed again.")
    for folder in folders:
        shutil.copytree(folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(HEADER))
    return shards
