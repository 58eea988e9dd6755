"""Data Docs: the findings as one self-contained HTML page.

Great Expectations' own page loads styles and scripts from five content delivery networks, which a cluster or
a saved artifact cannot reach. This page shows the same validation results with everything inline.
"""

from __future__ import annotations

from importlib.metadata import version

from car_model.evidence.data_profile import QUANTILES
from validation.data.findings import ValidationReport
from validation.data.policy import DataPolicy
from validation.report.html import render_page

ABOUT = {
    "source_interactions": "Interactions as mapped from the source, before anything is dropped.",
    "source_items": "The catalogue as mapped from the source, before anything is dropped.",
    "interactions": "The interactions that ingest kept; the model is trained and tested on them.",
    "items": "The items that ingest kept; each gets a semantic ID.",
    "": "This dataset compared with the one that production was trained on.",
}


def render_docs(report: ValidationReport, policy: DataPolicy) -> str:
    """The Data Docs page as HTML text."""
    groups = [
        (table or "Drift", about, findings)
        for table, about in ABOUT.items()
        if (findings := [finding for finding in report.findings if finding.table == table])
    ]
    return render_page(
        "data_docs.html",
        report=report,
        groups=groups,
        quantiles=QUANTILES,
        policy=policy.model_dump_json(indent=2),
        version=version("great_expectations"),
    )
