"""Validates a dataset folder: the data expectations that stand between ingest and training."""

from __future__ import annotations

from collections.abc import Mapping, Set
from importlib.metadata import version
from pathlib import Path
from typing import Any

from car_model.evidence.data_profile import QUANTILES
from car_model.evidence.drift import DataDrift
from common.files import write_atomic
from validation.data.drift import (
    compare_profiles,
    item_shares,
    judge_retired,
    measure_retired,
    profile_tables,
)
from validation.data.findings import ValidationError, ValidationReport
from validation.data.policy import DataPolicy
from validation.data.run_checks import check_tables
from validation.data.tables import load_tables
from validation.report.html import render_page

TITLES = {
    "source_interactions": "Interactions as mapped from the source, before anything is dropped.",
    "source_items": "The catalogue as mapped from the source, before anything is dropped.",
    "interactions": "The interactions that ingest kept; the model is trained and tested on them.",
    "items": "The items that ingest kept; each gets a semantic ID.",
    "": "This dataset compared with the one that production was trained on.",
}


def validate_dataset(
    dataset: Path,
    policy: DataPolicy,
    docs: Path,
    previous_profile: Mapping[str, Any] | None = None,
    previous_items: Set[str] | None = None,
    *,
    profile: Path | None = None,
    release: str = "",
) -> ValidationReport:
    """Check the folder that ingest wrote: source tables for broken rows, kept tables for its contract.

    Args:
        docs: the Data Docs, one self-contained HTML file; written also on failure. (Great Expectations' own
            page loads styles and scripts from the network, which a cluster may not reach.)
        previous_profile: the JSON object of production's data_profile.json; None skips drift.
        previous_items: ids of the items that production offers; None does not look for retired ones.
        profile: where to write this dataset's data_profile.json; None writes none.
        release: digest of the production release; "" if there is none.

    Raises ValidationError, which carries the report, if something that must hold does not.
    """
    tables = load_tables(Path(dataset))
    findings = check_tables(tables, policy)
    interactions, items = tables["interactions"].frame, tables["items"].frame
    # Broken kept tables have no profile: what breaks them is a finding that stops the run.
    broken = any(finding.stops and finding.table in ("interactions", "items") for finding in findings)
    measured = None if broken else profile_tables(interactions, items)
    drift = DataDrift(release=release or None)
    if previous_profile is not None and measured is not None:
        shares = item_shares(interactions)
        moved, drift = compare_profiles(measured, previous_profile, policy.drift, shares, release)
        findings += moved
    if previous_items is not None and measured is not None:
        retired = measure_retired(previous_items, items)
        drift = drift.model_copy(update={"retired": retired})
        findings.append(judge_retired(retired, policy.drift))
    report = ValidationReport(tuple(findings), measured, drift)
    groups = [
        (table or "Drift", about, part)
        for table, about in TITLES.items()
        if (part := [finding for finding in findings if finding.table == table])
    ]
    page = render_page(
        "data_docs.html",
        report=report,
        groups=groups,
        quantiles=QUANTILES,
        policy=policy.model_dump_json(indent=2),
        version=version("great_expectations"),
    )
    write_atomic(Path(docs), page)
    if not report.ok:
        raise ValidationError(report)
    if profile and measured:
        measured.write(profile)
    return report
