"""The manifest: a release's files, their versions and their origin.

The gate's answer is not in it: it is the stored verdict (`registry.releases.gate`), which names the bundle
that it judged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    model_validator,
)

from common.digests import json_digest
from common.errors import first_problem
from common.files import parse_json_object
from registry.errors import RegistryError, StoreError
from registry.store.base import check_name

FORMAT = 1
# Formats that carry data only. Other formats could run code when they are loaded.
DATA_SUFFIXES = (".json", ".npy", ".parquet", ".safetensors")
EVIDENCE_SUFFIXES = (".json", ".html")


def _check_path(path: str, suffixes: tuple[str, ...]) -> str:
    try:
        check_name(path)
    except StoreError as error:
        raise ValueError(str(error)) from error
    if not path.endswith(suffixes):
        raise ValueError(f"{path} may not be in a release: only {', '.join(suffixes)} files carry no code")
    return path


Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
NonEmpty = Annotated[str, StringConstraints(min_length=1)]
UtcTime = Annotated[
    AwareDatetime, AfterValidator(lambda time: time.astimezone(UTC)), PlainSerializer(datetime.isoformat)
]
BundlePath = Annotated[str, AfterValidator(lambda path: _check_path(path, DATA_SUFFIXES))]
EvidencePath = Annotated[str, AfterValidator(lambda path: _check_path(path, EVIDENCE_SUFFIXES))]
DocumentT = TypeVar("DocumentT", bound="Document")


class Document(BaseModel):
    """A frozen JSON document. Equal documents have the same bytes, so that they can be named by digest."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def to_bytes(self) -> bytes:
        """Return the bytes to store: indented JSON with sorted keys in UTF-8."""
        text = json.dumps(
            self.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False
        )
        return f"{text}\n".encode()

    @classmethod
    def from_bytes(cls: type[DocumentT], data: bytes, name: str, error: type[RegistryError]) -> DocumentT:
        """Parse stored bytes. Raises `error`, which names the object and the first bad field."""
        parse_json_object(data, name, error)  # refuses names given twice, of which pydantic takes the last
        try:
            return cls.model_validate_json(data)
        except ValidationError as problem:
            sentence = f"{name} is damaged or of another format: {first_problem(problem)}"
            raise error(sentence) from problem


class FileRecord(Document):
    """One stored file."""

    sha256: Digest
    """Digest of the file's bytes; it names the blob."""
    size: int = Field(ge=0)
    """Bytes."""


class Versions(Document):
    """The digests of a bundle's parts, as its bundle.json names them."""

    codebook: NonEmpty
    """Version of the codebook."""
    catalogue: NonEmpty
    """Version of the catalogue."""
    model: NonEmpty
    """Version of the weights."""
    data: NonEmpty
    """The dataset that the model was trained on."""
    encoder: dict[str, JsonValue] = Field(min_length=1)
    """Settings of the text encoder."""
    format: Literal[1]
    """Format of the bundle."""


class Manifest(Document):
    """A release. Its digest covers files and versions; the rest may differ between equal releases."""

    format: Literal[1] = 1
    """Format of this file."""
    release: Digest
    """The release's digest; see `release_identity`."""
    files: dict[BundlePath, FileRecord] = Field(min_length=1)
    """The bundle's files by path."""
    evidence: dict[EvidencePath, FileRecord]
    """Files about the release, such as verdict.json and report.html."""
    versions: Versions
    """Versions of the bundle's parts."""
    parent: Digest | None
    """The release that this one was compared with or made from."""
    metrics: dict[str, FiniteFloat]
    """Mean metrics on the holdout, between 0 and 1; empty if the release was not evaluated itself."""
    holdout: NonEmpty | None
    """Version of the holdout that `metrics` are of; those of another holdout can't be compared with them."""
    forced: NonEmpty | None = None
    """The reason for which the release was written although the gate did not bless it."""
    git_commit: NonEmpty | None
    """Commit of the code that made it."""
    run_id: NonEmpty | None
    """The pipeline run that made it."""
    created: UtcTime
    """When the release was written."""

    @model_validator(mode="after")
    def _digest_matches_content(self) -> Manifest:
        if release_identity(self.files, self.versions) != self.release:
            raise ValueError("the files and versions it lists are not those its release digest stands for")
        return self

    def all_files(self) -> list[tuple[str, FileRecord]]:
        """Path and record of every file: the bundle's and the evidence."""
        return [*self.files.items(), *self.evidence.items()]


def release_identity(files: Mapping[str, FileRecord], versions: Versions) -> str:
    """A release's digest: hex SHA-256 over file names, file bytes and versions."""
    return json_digest(
        {
            "format": FORMAT,
            "files": {path: record.sha256 for path, record in files.items()},
            "versions": versions.model_dump(mode="json"),
        }
    )
