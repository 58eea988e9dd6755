"""Text vectors made by several machines: who embeds which text, and one folder of all in the end.

A text belongs to one shard by its own digest, whatever else the catalogue holds and in whatever order. Its
vector does not depend on what is encoded beside it (`encoder.Encoder.encode`), so that the merged vectors are
the same bits for every number of shards.
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

NOTE = "shard.json"


class ShardError(UserError, ValueError):
    """The shards given are not those of one catalogue; the message is one sentence."""


@dataclass(frozen=True)
class Shard:
    """What a shard's folder says of itself.

    Attributes:
        number: 0 to of - 1.
        dataset: digest of the dataset its texts are from.
        encoder: digest of the encoder's identity.
    """

    number: int
    of: int
    dataset: str
    encoder: str


def texts_of(texts: Sequence[str], number: int, of: int) -> list[str]:
    """The distinct texts that a shard embeds, in the catalogue's order."""
    return [text for text in dict.fromkeys(texts) if int(text_key(text)[:15], 16) % of == number]


def write_shard(
    folder: Path, encoder: Encoder, texts: Sequence[str], shard: Shard, cache: Path | None = None
) -> int:
    """Embed a shard's part of a catalogue's texts into a folder; returns how many.

    Args:
        cache: folder of vectors kept between runs.
    """
    folder.mkdir(parents=True)
    mine = texts_of(texts, shard.number, shard.of)
    if mine:
        made = dict(zip(mine, embed(encoder, mine, cache), strict=True))
        VectorCache(folder / shard.encoder).add(made)
    (folder / NOTE).write_text(json.dumps(asdict(shard)))
    return len(mine)


def merge_shards(folders: Sequence[Path], target: Path) -> list[Shard]:
    """Put the vectors of all shards into one folder, which `embed` takes for its cache.

    Raises:
        ShardError: a shard is missing, doubled, or of another catalogue or encoder.
    """
    shards = [_read(folder) for folder in folders]
    kinds = {(shard.of, shard.dataset, shard.encoder) for shard in shards}
    if len(kinds) != 1:
        raise ShardError(
            "the shards are of several runs: their number, dataset or encoder differ; embed again."
        )
    counts, of = Counter(shard.number for shard in shards), shards[0].of
    missing = [str(number) for number in range(of) if number not in counts]
    doubled = [str(number) for number, times in sorted(counts.items()) if times > 1]
    if missing or doubled:
        what = f"{', '.join(missing)} missing" if missing else f"{', '.join(doubled)} there twice"
        raise ShardError(f"of the {of} shards {what}; embed again.")
    for folder in folders:
        shutil.copytree(folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(NOTE))
    return shards


def _read(folder: Path) -> Shard:
    try:
        return Shard(**json.loads((folder / NOTE).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ShardError(f"{folder} is no shard of vectors ({error}); embed again.") from error
