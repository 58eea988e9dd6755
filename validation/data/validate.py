"""Validates a dataset folder: the data expectations that stand between ingest and training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.files import write_atomic
from validation.data.data_docs import render_docs
from validation.data.drift import Figures, compare_profiles
from validation.data.findings import Finding, ValidationError, ValidationReport
from validation.data.policy import DataPolicy, DriftPolicy
from validation.data.profile import DataProfile, item_shares, profile_tables
from validation.data.run_checks import check_tables
from validation.data.tables import Table, load_tables

__all__ = [
    "DataPolicy",
    "DataProfile",
    "DriftPolicy",
    "Finding",
    "ValidationError",
    "ValidationReport",
    "validate_dataset",
]


def validate_dataset(
    dataset: Path,
    policy: DataPolicy,
    docs: Path,
    previous_profile: Mapping[str, Any] | None = None,
    profile: Path | None = None,
) -> ValidationReport:
    """Check the folder that ingest wrote: source tables for broken rows, kept tables for its contract.

    Args:
        docs: the Data Docs, one self-contained HTML file; written also on failure.
        previous_profile: production's data_profile.json; None skips drift.
        profile: where to write this dataset's data_profile.json; None writes none.

    Raises:
        ValidationError: something that must hold does not; carries the report.
    """
    tables = load_tables(Path(dataset))
    findings = check_tables(tables, policy)
    measured = _profile(tables, findings)
    drift: Figures = {}
    if previous_profile is not None and measured is not None:
        shares = item_shares(tables["interactions"].frame)
        moved, drift = compare_profiles(measured, previous_profile, policy.drift, shares)
        findings += moved
    report = ValidationReport(tuple(findings), measured, drift)
    write_atomic(Path(docs), render_docs(report, policy))
    if not report.ok:
        raise ValidationError(report)
    if profile and measured:
        write_atomic(Path(profile), json.dumps(measured.to_json(), indent=2) + "\n")
    return report


def _profile(tables: Mapping[str, Table], findings: list[Finding]) -> DataProfile | None:
    """The profile, where the kept tables are sound enough to have one (what breaks them is a finding)."""
    kept = ("interactions", "items")
    if any(one.stops and one.table in kept for one in findings):
        return None
    return profile_tables(*(tables[name].frame for name in kept))
