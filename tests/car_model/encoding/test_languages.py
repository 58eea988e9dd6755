"""Texts that the encoder can't tell apart are refused before anything is embedded; all others pass."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from car_model.codebook.semantic_ids import encoder_for
from car_model.encoding.encoder import Encoder, EncoderError, EncoderSpec, check_texts, load_encoder
from tests.car_model.builders import tiny_dataset

ENGLISH = [f"green tea number {i}" for i in range(20)]
KHMER = [f"តែ{chr(0x1780 + i)}" for i in range(20)]
THAI = [f"ชา{chr(0x0E01 + i)}" for i in range(20)]
EMOJI = [chr(0x1F345 + i) for i in range(20)]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(EncoderSpec())


@pytest.mark.parametrize("texts", [KHMER, THAI, EMOJI, [*ENGLISH, *THAI], [f"tea; {text}" for text in KHMER]])
def test_unknown_scripts_are_refused_with_their_share_and_a_way_out(
    encoder: Encoder, texts: list[str]
) -> None:
    with pytest.raises(EncoderError) as refused:
        check_texts(encoder, texts)
    sentence = str(refused.value)
    assert f"19 of {len(texts)} different texts get the vector of another text (such as " in sentence
    assert (
        "% of their tokens are unknown to it; it speaks English. Use an encoder of the texts' language, "
        in sentence
    )
    assert sentence.endswith("such as --encoder sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2.")


def test_the_share_is_that_of_unknown_tokens(encoder: Encoder) -> None:
    with pytest.raises(EncoderError, match=r": 100% of their tokens"):
        check_texts(encoder, KHMER)
    with pytest.raises(EncoderError, match=r": 50% of their tokens"):
        check_texts(encoder, [f"tea {text}" for text in KHMER])


@pytest.mark.parametrize(
    "texts",
    [
        ENGLISH,
        [*ENGLISH * 10, *(f"coffee {i}" for i in range(200)), *THAI[:10]],
        ["чай зелёный", "чай чёрный", "кофе"],
        ["شاي أخضر", "شاي أسود", "نعناع"],
        ["Tea", "TEA", "tea", "téa"],  # they mean the same
        ["same"] * 20,
        [],
    ],
)
def test_what_the_encoder_can_read_passes(encoder: Encoder, texts: list[str]) -> None:
    check_texts(encoder, texts)


def test_texts_that_differ_only_where_they_are_cut_are_another_matter(encoder: Encoder) -> None:
    with pytest.raises(EncoderError, match="equal in the first 128 tokens, and the rest is cut off"):
        check_texts(encoder, [f"{'green tea ' * 100}{i}" for i in range(20)])


def test_both_ways_to_embed_check_first() -> None:
    dataset = tiny_dataset()
    items = pd.DataFrame(
        {**dataset.items, "title": [KHMER[i % 20] * (1 + i // 20) for i in range(len(dataset.items))]}
    )
    items = items.assign(**{name: "" for name in dataset.text_columns if name != "title"})
    with pytest.raises(EncoderError, match="unknown to it"):
        encoder_for(replace(dataset, items=items), EncoderSpec(), None)
