"""Real sentence-transformers models: the embedded MiniLM, and a Sentence-T5 of the published layout."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants

from car_model.encoding.encoder import (
    BF16_COSINE,
    Encoder,
    EncoderError,
    EncoderSpec,
    choose_precision,
    embed,
    load_encoder,
    model_folder,
)

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
TEXTS = [
    "Toy Story (1995); Animation, Children's, Comedy",
    "GoldenEye (1995); Action, Adventure, Thriller",
    "a",
    "",
    "🎬 Amélie \0 \x1b[31m",
    "word " * 400,
]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # read once, at import


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    return load_encoder(EncoderSpec())


def test_vectors_are_finite_and_unit_length(minilm: Encoder) -> None:
    vectors = minilm.encode(TEXTS)
    assert (vectors.shape, vectors.dtype) == ((6, 384), np.float32)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(6), abs=1e-5)


def test_meaning_decides_what_is_near(minilm: Encoder) -> None:
    toys, cars, war = minilm.encode(["animated film for children", "a cartoon for kids", "trench warfare"])
    assert toys @ cars > 0.5 > toys @ war


def test_a_hub_that_is_down_for_a_while_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [503, 429, 404]  # and a model that is not there is not

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(answers.pop(0) if len(answers) > 1 else answers[0])

        do_HEAD = do_GET  # noqa: N815 - http.server's own name

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    with pytest.raises(EncoderError, match="the encoder 'team/encoder' can't be downloaded"):
        model_folder(EncoderSpec(name="team/encoder"))
    server.shutdown()
    server.server_close()
    assert answers == [404]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_vector_does_not_depend_on_its_company_to_the_last_bit(minilm: Encoder, precision: str) -> None:
    encoder = replace(minilm, spec=replace(minilm.spec, precision=precision))
    texts = [*TEXTS, *(f"{text} {number}" for text in TEXTS for number in range(12))]
    together = encoder.encode(texts)
    assert np.array_equal(encoder.encode(texts[::-1])[::-1], together)
    assert np.array_equal(np.concatenate([encoder.encode([text]) for text in TEXTS]), together[: len(TEXTS)])


def test_loading_twice_gives_one_identity_and_equal_vectors(minilm: Encoder) -> None:
    again = load_encoder(EncoderSpec())
    assert again.spec == minilm.spec
    assert len(minilm.spec.weights) == 64
    assert np.array_equal(again.encode(TEXTS), minilm.encode(TEXTS))


def test_the_identity_made_exact_loads_and_another_is_refused(minilm: Encoder) -> None:
    assert load_encoder(minilm.spec).spec == minilm.spec
    with pytest.raises(EncoderError, match=r"the codebook was made with 000000000000; use that revision"):
        load_encoder(replace(minilm.spec, weights="0" * 64))


def test_bf16_is_chosen_only_where_it_loses_nothing(minilm: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("car_model.encoding.encoder.native_bf16", lambda device: True)
    exact, rough = (replace(minilm, spec=replace(minilm.spec, precision=p)) for p in ("fp32", "bf16"))
    cosines = (exact.encode(TEXTS) * rough.encode(TEXTS)).sum(axis=1)
    assert not np.array_equal(exact.encode(TEXTS), rough.encode(TEXTS))  # bf16 is really at work
    settled = choose_precision(minilm, TEXTS)
    assert settled.spec.precision == ("bf16" if cosines.min() > BF16_COSINE else "fp32")
    assert cosines.min() > BF16_COSINE


def test_tokens_beyond_the_limit_are_cut(minilm: Encoder) -> None:
    short = load_encoder(EncoderSpec(max_tokens=8))
    long = "one two three four five six seven eight nine ten"
    assert np.array_equal(short.encode([long]), short.encode([long + " eleven twelve"]))
    assert not np.allclose(minilm.encode([long]), minilm.encode([long + " eleven twelve"]), atol=1e-3)


def test_the_cache_spares_the_model(minilm: Encoder, tmp_path: Path) -> None:
    first = embed(minilm, TEXTS, tmp_path)
    assert np.array_equal(embed(replace(minilm, model=None), TEXTS, tmp_path), first)  # type: ignore[arg-type]


def test_a_changed_file_is_another_encoder_but_notes_beside_it_are_not(
    tmp_path: Path, minilm: Encoder
) -> None:
    folder = Path(shutil.copytree(model_folder(EncoderSpec()), tmp_path / "copy"))
    (folder / "README.md").write_text("other words")
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "download.metadata").write_text("1732245600.0")
    assert load_encoder(EncoderSpec(name=str(folder))).spec.weights == minilm.spec.weights
    with (folder / "tokenizer_config.json").open("a") as stream:
        stream.write("\n")
    with pytest.raises(EncoderError, match="fit a new codebook"):
        load_encoder(replace(minilm.spec, name=str(folder)))


@pytest.mark.parametrize("name", ["", "no/such-model", "not a name!", "/no/such/folder", "x" * 5000, "a\0b"])
def test_an_encoder_that_is_not_there_is_said_at_once(name: str) -> None:
    with pytest.raises(EncoderError, match="check the name and the network"):
        load_encoder(EncoderSpec(name=name))


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="is not a sentence-transformers model"):
        load_encoder(EncoderSpec(name=str(tmp_path)))


def test_code_in_a_models_folder_is_never_run(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_folder(EncoderSpec()), tmp_path / "copy"))
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "evil.Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(EncoderError, match="evil"):
        load_encoder(EncoderSpec(name=str(folder)))
    assert not (tmp_path / "ran").exists()


def write_tokenizer(folder: Path) -> None:
    """A Unigram tokenizer as T5's, trained on a few words here."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator([text for text in TEXTS if text] * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)


def write_stack(folder: Path) -> None:
    """modules.json and each module's configuration: encoder, mean pooling, a linear layer, unit length."""
    stack = [
        ("", "Transformer"),
        ("1_Pooling", "Pooling"),
        ("2_Dense", "Dense"),
        ("3_Normalize", "Normalize"),
    ]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(stack)
    ]
    pooling = {
        "word_embedding_dimension": 32,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_cls_token": False,
    }
    activation = "torch.nn.modules.linear.Identity"
    dense = {"in_features": 32, "out_features": 24, "bias": False, "activation_function": activation}
    written = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
        "1_Pooling/config.json": pooling,
        "2_Dense/config.json": dense,
    }
    for name, value in written.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value))


@pytest.fixture(scope="module")
def sentence_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of sentence-transformers/sentence-t5-base, with tiny random weights."""
    from safetensors.torch import save_file
    from transformers import T5Config, T5EncoderModel

    folder = tmp_path_factory.mktemp("sentence-t5")
    torch.manual_seed(0)
    config = T5Config(vocab_size=60, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    T5EncoderModel(config).save_pretrained(folder)
    write_tokenizer(folder)
    write_stack(folder)
    save_file({"linear.weight": torch.randn(24, 32)}, folder / "2_Dense" / "model.safetensors")
    return folder


def by_hand(folder: Path, text: str) -> np.ndarray:
    """Sentence-T5 as published: mean over tokens, a linear layer, unit length."""
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, T5EncoderModel

    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt", truncation=True, max_length=128)
    with torch.inference_mode():
        model = T5EncoderModel.from_pretrained(folder).eval()
        states = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    weight = load_file(folder / "2_Dense" / "model.safetensors")["linear.weight"]
    vector = states.last_hidden_state[0].mean(dim=0) @ weight.T
    return (vector / vector.norm()).numpy()


def test_a_sentence_t5_loads_by_the_same_path(sentence_t5: Path) -> None:
    encoder = load_encoder(EncoderSpec(name=str(sentence_t5)))
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (6, 24)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(6), abs=1e-5)
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert vector == pytest.approx(by_hand(sentence_t5, text), abs=1e-5)


def test_a_sentence_t5s_dense_layer_is_part_of_its_identity(sentence_t5: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sentence_t5, tmp_path / "copy"))
    before = load_encoder(EncoderSpec(name=str(folder))).spec
    weights = folder / "2_Dense" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(EncoderError, match="has weights"):
        load_encoder(before)
