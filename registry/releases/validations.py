"""Validations of a release after it was written: reports that it can be served, by newer code than its first.

They lie beside the manifest, which never changes, each under the digest of its content. A release that goes
takes them along.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import JsonValue

from registry.errors import ObjectDamaged, ReleaseError
from registry.releases.layout import validation_name, validations_folder
from registry.releases.manifest import Digest, Document, Filled, Moment
from registry.releases.release import mark_release
from registry.store.base import ObjectStore


class Validation(Document):
    """A report, who made it and when."""

    format: Literal[1] = 1
    release: Digest
    who: Filled
    created: Moment
    report: dict[str, JsonValue]


def add_validation(store: ObjectStore, release: str, report: Mapping[str, Any], who: str) -> Validation:
    """Store a report beside a release (full digest).

    Raises:
        ReleaseError: the release is not in the registry, or the report holds what JSON cannot.
        StoreError: the store cannot be written.
    """
    mark_release(store, release)  # a collection that saw it unused lets it be
    try:
        made = Validation(release=release, who=who, created=datetime.now(UTC), report=dict(report))
        data = made.to_bytes()
    except ValueError as error:
        raise ReleaseError(f"The validation of release {release[:12]} cannot be stored: {error}.") from error
    store.create(validation_name(release, hashlib.sha256(data).hexdigest()), data)
    return made


def read_validations(store: ObjectStore, release: str) -> list[Validation]:
    """A release's validations, newest first. Raises ReleaseError where one is damaged."""
    found = [read_validation(store, name) for name in store.list(validations_folder(release))]
    return sorted(found, key=lambda one: one.created, reverse=True)


def read_validation(store: ObjectStore, name: str) -> Validation:
    """Read one by its object name. Raises ReleaseError where it is damaged."""
    try:
        data = store.read(name)
    except ObjectDamaged as error:
        raise ReleaseError(str(error)) from error
    found = hashlib.sha256(data).hexdigest()
    made = Validation.from_bytes(data, f"{store.url}/{name}", ReleaseError)
    if name != validation_name(made.release, found):
        raise ReleaseError(f"{store.url}/{name} is damaged: its digest is {found[:12]}.")
    return made
