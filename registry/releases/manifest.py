"""The manifest: what a release is made of, where it comes from and what the gate said of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

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
from registry.errors import RegistryError, StoreError
from registry.store.base import check_name

FORMAT = 1
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Filled = Annotated[str, StringConstraints(min_length=1)]


def _safe_path(path: str) -> str:
    try:
        return check_name(path)
    except StoreError as error:
        raise ValueError(str(error)) from error


Moment = Annotated[
    AwareDatetime, AfterValidator(lambda when: when.astimezone(UTC)), PlainSerializer(datetime.isoformat)
]
SafePath = Annotated[str, AfterValidator(_safe_path)]
ModelT = TypeVar("ModelT", bound="Document")


class Document(BaseModel):
    """A frozen JSON document with one canonical text, so that its digest means something."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def to_bytes(self) -> bytes:
        """The bytes as stored: indented, sorted keys, UTF-8."""
        text = json.dumps(
            self.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False
        )
        return (text + "\n").encode()

    @classmethod
    def from_bytes(cls: type[ModelT], data: bytes, name: str, error: type[RegistryError]) -> ModelT:
        """Parse stored bytes; raises `error`, which names the object and its first bad field."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as problem:
            first = problem.errors()[0]
            place = ".".join(map(str, first["loc"]))
            where = f" at {place}" if place else ""
            raise error(f"{name} is damaged or of another format{where}: {first['msg']}.") from problem


class FileRecord(Document):
    """One stored file."""

    sha256: Digest
    size: int = Field(ge=0)  # bytes


class Versions(Document):
    """What a bundle says it is made of: the digests in its bundle.json."""

    codebook: Filled
    catalogue: Filled
    model: Filled
    data: Filled
    encoder: dict[str, JsonValue] = Field(min_length=1)
    format: Literal[1]


class Gate(Document):
    """The gate's answer as the registry keeps it; the whole verdict is among the evidence."""

    blessed: bool
    bootstrap: bool
    failing: tuple[str, ...]  # conditions that block
    forced: Filled | None = None  # the reason given where the release was written against the verdict


class Manifest(Document):
    """A release. Its identity covers files and versions; all else may differ between equal releases."""

    format: Literal[1] = 1
    release: Digest
    files: dict[SafePath, FileRecord] = Field(min_length=1)
    evidence: dict[SafePath, FileRecord]
    versions: Versions
    parent: Digest | None
    metrics: dict[str, FiniteFloat]
    gate: Gate
    git_commit: Filled | None
    run_id: Filled | None
    created: Moment

    @model_validator(mode="after")
    def _names_itself(self) -> Manifest:
        if identity(self.files, self.versions) != self.release:
            raise ValueError("the files and versions it lists are not those its release digest stands for")
        return self


def identity(files: Mapping[str, FileRecord], versions: Versions) -> str:
    """A release's digest (hex SHA-256): over file names, file bytes and versions, and nothing else."""
    parts: dict[str, Any] = {
        "format": FORMAT,
        "files": {path: record.sha256 for path, record in files.items()},
        "versions": versions.model_dump(mode="json"),
    }
    return json_digest(parts)
