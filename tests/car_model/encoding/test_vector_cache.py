"""Text vectors are encoded once; a damaged cache costs time, never a wrong vector."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from car_model.encoding.encoder import Encoder, EncoderError, EncoderSpec, choose_precision, embed
from car_model.encoding.vector_cache import VectorCache

TEXTS = ["Heat; crime", "Ran; drama", "", "Ünïcode 🎬", "Heat; crime "]
SPEC = EncoderSpec(name="counting", precision="fp32", weights="0" * 64)


class CountingModel:
    """A deterministic text-to-vector function that remembers what it was seen_texts."""

    device = "cpu"

    def __init__(self) -> None:
        self.seen_texts: list[str] = []

    max_seq_length = 32

    def get_embedding_dimension(self) -> int:
        return 32

    def tokenizer(self, texts: list[str], padding: str = "", **_: Any) -> dict[str, Any]:
        rows = [np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype=np.uint8) for text in texts]
        if padding:  # the batch that is encoded next; it may be filled up with a text of its own
            self.seen_texts += dict.fromkeys(texts)
            return {"input_ids": torch.from_numpy(np.stack(rows).astype(np.int64))}
        return {"input_ids": [row.tolist() for row in rows]}

    def __call__(self, tokens: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"sentence_embedding": tokens["input_ids"].float() - 128.0}


def counting(spec: EncoderSpec = SPEC) -> tuple[Encoder, CountingModel]:
    model = CountingModel()
    return Encoder(spec, model), model  # type: ignore[arg-type]


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """A cache folder that holds TEXTS."""
    embed(counting()[0], TEXTS, tmp_path)
    return tmp_path


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


def test_vectors_follow_the_texts_and_are_unit_length() -> None:
    encoder, model = counting()
    vectors = embed(encoder, [TEXTS[1], TEXTS[0], TEXTS[1]])
    assert (vectors.shape, vectors.dtype) == ((3, 32), np.float32)
    assert np.array_equal(vectors[0], vectors[2])
    assert np.array_equal(vectors[1], embed(encoder, [TEXTS[0]])[0])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    assert model.seen_texts == [TEXTS[1], TEXTS[0], TEXTS[0]]  # the repeated text once


def test_without_normalisation_vectors_stay_as_they_are() -> None:
    raw = embed(counting(replace(SPEC, normalisation="none"))[0], TEXTS)
    assert np.linalg.norm(raw, axis=1).min() > 100


def test_what_is_cached_is_not_encoded_again(cached: Path) -> None:
    encoder, model = counting()
    again = embed(encoder, [*TEXTS, "new one"], cached)
    assert model.seen_texts == ["new one"]
    assert np.array_equal(again[:5], embed(counting()[0], TEXTS))
    encoder, model = counting()
    embed(encoder, [*TEXTS, "new one"], cached)
    assert model.seen_texts == []


def test_cached_vectors_are_the_ones_used(cached: Path) -> None:
    """Proof by poison: a well-formed file with other numbers changes what comes back."""
    folder = cached / SPEC.digest()
    for path in files(cached):
        path.unlink()
    VectorCache(folder).add({TEXTS[0]: np.full(32, 7.0, dtype=np.float32)})
    assert embed(counting()[0], TEXTS, cached)[0].tolist() == [7.0] * 32


@pytest.mark.parametrize(
    "change", [{"weights": "1" * 64}, {"precision": "bf16"}, {"normalisation": "none"}, {"max_tokens": 5}]
)
def test_another_encoder_does_not_share_the_cache(cached: Path, change: dict[str, Any]) -> None:
    encoder, model = counting(replace(SPEC, **change))
    embed(encoder, TEXTS, cached)
    assert model.seen_texts == TEXTS


@pytest.mark.parametrize("content", [b"", b"PAR1", b"\0" * 100])
def test_an_unreadable_cache_file_is_encoded_again(cached: Path, content: bytes) -> None:
    (path,) = files(cached)
    path.write_bytes(content)
    encoder, model = counting()
    assert np.array_equal(embed(encoder, TEXTS, cached), embed(counting()[0], TEXTS))
    assert model.seen_texts == TEXTS
    assert files(cached) == [path]  # and mended
    encoder, model = counting()
    embed(encoder, TEXTS, cached)
    assert model.seen_texts == []


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_no_damaged_byte_becomes_part_of_a_vector(
    tmp_path_factory: pytest.TempPathFactory, fraction: float, flip: int
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    exact = embed(counting()[0], TEXTS, cache)
    (path,) = files(cache)
    damaged = bytearray(path.read_bytes())
    damaged[int(fraction * len(damaged))] ^= flip
    path.write_bytes(damaged)
    assert np.array_equal(embed(counting()[0], TEXTS, cache), exact)


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"key": ["a"]}),
        pa.table({"vector": [[1.0]]}),
        pa.table({"key": ["a"], "vector": ["text"]}),
        pa.table({"key": ["a", "b"], "vector": [[1.0], [1.0, 2.0]]}),
        pa.table({"key": pa.array([], pa.string()), "vector": pa.array([], pa.list_(pa.float32(), 3))}),
    ],
)
def test_tables_of_another_shape_are_passed_over(cached: Path, table: pa.Table) -> None:
    pq.write_table(table, cached / SPEC.digest() / "0.parquet")
    encoder, model = counting()
    embed(encoder, TEXTS, cached)
    assert model.seen_texts == []


def test_a_writer_that_died_leaves_nothing_that_is_read(cached: Path) -> None:
    (path,) = files(cached)
    path.rename(path.with_suffix(".999.partial"))
    encoder, model = counting()
    embed(encoder, TEXTS, cached)
    assert model.seen_texts == TEXTS


def test_nothing_to_embed_is_said() -> None:
    with pytest.raises(EncoderError, match="catalogue is empty"):
        embed(counting()[0], [])


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp32")])
def test_precision_is_settled_once_by_what_the_processor_has(
    monkeypatch: pytest.MonkeyPatch, native: bool, expected: str
) -> None:
    monkeypatch.setattr("car_model.encoding.encoder.native_bf16", lambda device: native)
    settled = choose_precision(counting(replace(SPEC, precision="auto"))[0], TEXTS)
    assert settled.spec.precision == expected  # this model does not multiply: nothing is lost
    assert choose_precision(settled, TEXTS) is settled
    encoder, model = counting()
    assert choose_precision(encoder, TEXTS).spec.precision == "fp32"
    assert model.seen_texts == []
