"""Validations: reports, written after a release, that newer code can serve it.

They are stored next to the manifest, which never changes, each under the digest of its content. They are
deleted with their release.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import JsonValue

from registry.errors import ObjectDamaged, ReleaseError
from registry.releases.layout import is_validation, validation_name, validations_folder
from registry.releases.manifest import Digest, Document, NonEmpty, UtcTime
from registry.releases.release import mark_in_use
from registry.store.base import ObjectStore


class Validation(Document):
    """One validation of a release."""

    format: Literal[1] = 1
    release: Digest
    who: NonEmpty
    """The person or pipeline that validated the release."""
    created: UtcTime
    report: dict[str, JsonValue]
    """The infra-validation report (`serving.torchserve.infra_validation`)."""


def add_validation(store: ObjectStore, release: str, report: Mapping[str, Any], who: str) -> Validation:
    """Store a report next to a release (full digest).

    Raises:
        ReleaseError: the release is not in the registry, or the report cannot be written as JSON.
        StoreError: the store cannot be written.
    """
    mark_in_use(store, release)  # so that a concurrent garbage collection keeps it
    try:
        validation = Validation(release=release, who=who, created=datetime.now(UTC), report=dict(report))
        data = validation.to_bytes()
    except ValueError as error:
        raise ReleaseError(f"The validation of release {release[:12]} cannot be stored: {error}.") from error
    store.create(validation_name(release, hashlib.sha256(data).hexdigest()), data)
    return validation


def read_validations(store: ObjectStore, release: str) -> list[Validation]:
    """Read a release's validations, newest first. Raises ReleaseError if one is damaged."""
    names = filter(is_validation, store.list(validations_folder(release)))
    validations = [read_validation(store, name) for name in names]
    return sorted(validations, key=lambda validation: validation.created, reverse=True)


def read_validation(store: ObjectStore, name: str) -> Validation:
    """Read one validation by its object name. Raises ReleaseError if it is damaged."""
    try:
        data = store.read(name)
    except ObjectDamaged as error:
        raise ReleaseError(str(error)) from error
    validation = Validation.from_bytes(data, f"{store.url}/{name}", ReleaseError)
    digest = hashlib.sha256(data).hexdigest()
    if name != validation_name(validation.release, digest):
        raise ReleaseError(f"{store.url}/{name} is damaged: its digest is {digest[:12]}.")
    return validation
