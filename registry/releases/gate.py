"""The gate's answer about a release, as its stored verdict gives it.

A release that was judged first without a champion may be judged again, by a run with equal content that has
one to compare with. That verdict is stored beside the manifest, which never changes.

A flag could be edited. A verdict is stored under its digest, follows from its conditions, and names the
bundle that it judged: beside another bundle it blesses nothing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from car_model.evidence.base import EvidenceError
from car_model.evidence.verdict import Verdict
from common.files import parse_json_object
from registry.errors import ObjectDamaged, ObjectMissing
from registry.releases.layout import blob_name, is_verdict, verdict_name, verdicts_folder
from registry.releases.manifest import Manifest
from registry.store.base import ObjectStore

VERDICT = "verdict.json"
ONBOARDING = "onboarding"  # the policy of a release that only adds items to its parent


class Gate(BaseModel):
    """The gate's answer in short."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    blessed: bool
    """Whether there is a verdict of this very bundle, and every blocking condition passed."""
    compared: bool
    """Whether it was compared with a champion; a first release (bootstrap) is not."""
    policy: str
    """Digest of the policy that decided, or `onboarding`; empty without a verdict."""
    holdout: str | None
    """Version of the holdout that it was judged on."""
    failing: tuple[str, ...]
    """Names of the blocking conditions that failed, or why there is no verdict."""

    @property
    def word(self) -> str:
        """How a table calls the answer."""
        if not self.blessed:
            return "refused"
        if self.policy == ONBOARDING:
            return "onboarded"
        return "blessed" if self.compared else "first"


def read_gate(store: ObjectStore, manifest: Manifest) -> Gate:
    """Read a release's verdict; one that is missing, damaged or of another bundle blesses nothing.

    A later verdict counts if it blesses the release and compared it with a champion, and the first did not.

    Raises StoreError if the store cannot be read.
    """
    first = _read_first(store, manifest)
    if first.blessed and not first.compared:
        for name, data in later_verdicts(store, manifest.release):
            if data is not None and name == verdict_name(manifest.release, hashlib.sha256(data).hexdigest()):
                later = judge(data, manifest.release)
                if later.blessed and later.compared:
                    return later
    return first


def later_verdicts(store: ObjectStore, release: str) -> list[tuple[str, bytes | None]]:
    """Names and bytes of the verdicts that a release got after it was written; None if one is damaged."""
    verdicts: list[tuple[str, bytes | None]] = []
    for name in filter(is_verdict, store.list(verdicts_folder(release))):
        try:
            verdicts.append((name, store.read(name)))
        except (ObjectMissing, ObjectDamaged):
            verdicts.append((name, None))
    return verdicts


def add_verdict(store: ObjectStore, manifest: Manifest, verdict: Path) -> None:
    """Store a run's verdict beside a release that was there already, if it says more than the first.

    Raises StoreError if the store cannot be written.
    """
    data = verdict.read_bytes()
    gate = judge(data, manifest.release)
    if gate.blessed and gate.compared and not read_gate(store, manifest).compared:
        store.create(verdict_name(manifest.release, hashlib.sha256(data).hexdigest()), data)


def _read_first(store: ObjectStore, manifest: Manifest) -> Gate:
    record = manifest.evidence.get(VERDICT)
    try:
        data = store.read(blob_name(record.sha256)) if record else None
    except (ObjectMissing, ObjectDamaged) as error:
        return no_gate(str(error))
    if record and data is not None and hashlib.sha256(data).hexdigest() != record.sha256:
        return no_gate(f"{store.url}/{blob_name(record.sha256)} is damaged.")
    return judge(data, manifest.release)


def judge(verdict: bytes | None, release: str) -> Gate:
    """What the bytes of a verdict.json say about a release (full digest)."""
    if verdict is None:
        return no_gate(f"there is no {VERDICT}")
    try:
        content = Verdict.from_object(parse_json_object(verdict, VERDICT, EvidenceError), VERDICT)
    except EvidenceError as error:
        return no_gate(str(error))
    if content.release != release:
        judged = content.release[:12] if content.release else "none"
        return no_gate(f"{VERDICT} judges another release, {judged}, instead of {release[:12]}")
    return Gate(
        blessed=content.blessed,
        compared=content.compared and content.champion != release,  # with itself says nothing
        policy=content.policy,
        holdout=content.holdout,
        failing=tuple(result.name for result in content.blockers),
    )


def no_gate(reason: str) -> Gate:
    """The answer of a verdict that cannot be relied on."""
    return Gate(blessed=False, compared=False, policy="", holdout=None, failing=(reason.rstrip("."),))
