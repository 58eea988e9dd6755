"""The gate's report for people: one self-contained HTML file with the verdict on top and the evidence below.

It renders whatever evidence there is: a release is often blocked because evidence is missing or damaged
(`Evaluation.salvage` leaves out what is damaged).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from car_model.evidence.evaluation import Evaluation
from car_model.evidence.training import RecipeRecord
from car_model.evidence.verdict import Verdict
from common.files import write_atomic
from validation.report import charts, sections
from validation.report.html import render_page

PACKAGES = ("car-on-kubeflow", "torch", "kfp", "sentence-transformers", "scikit-learn", "pyarrow")
SAMPLES, HISTORY, ANSWERS = 6, 10, 5  # samples shown, titles of a history, items of an answer


@dataclass(frozen=True)
class ReportInputs:
    """What the report shows."""

    evaluation: Evaluation
    verdict: Verdict
    dataset: Mapping[str, Any] = field(default_factory=dict)  # ingest's report.json
    bundle: Mapping[str, Any] = field(default_factory=dict)  # bundle.json
    recipe: RecipeRecord | None = None  # what the run trained by, and where that came from
    run: Mapping[str, str] = field(default_factory=dict)  # date, id and code commit
    packages: Mapping[str, str] = field(default_factory=dict)  # versions by name


def render_report(inputs: ReportInputs, output: Path) -> None:
    """Write the report, whole or not at all."""
    evaluation, verdict = inputs.evaluation, inputs.verdict
    drift, codebook = evaluation.drift, evaluation.codebook
    champion, holdout = evaluation.champion, evaluation.holdout
    models, compared = dict(evaluation.models), dict(champion.models) if champion else {}
    if champion and holdout and champion.holdout == holdout.digest:  # its figures stand beside all others
        models, compared = models | compared, {}
    differences = sections.differences(evaluation.paired, sections.METRICS)
    page = render_page(
        "report.html",
        verdict=verdict,
        failed=[*verdict.blockers, *verdict.warnings],
        waived=sum(result.verdict == "waived" for result in verdict.conditions),
        not_applicable=sum(result.verdict == "not applicable" for result in verdict.conditions),
        forced=sorted(verdict.forced, key=lambda promotion: not promotion.in_use),
        headline=list(sections.headline(evaluation)),
        holdout=holdout,
        champion=champion,
        offer=evaluation.offer,
        metrics=[sections.metric_title(metric) for metric in sections.METRICS],
        models=sections.models_table(models),
        levers=sections.levers(evaluation.similarity),
        compared=sections.models_table(compared),
        comparison=sections.comparison(evaluation.champion, evaluation.holdout),
        same=champion.same if champion else "",
        cold=sections.cold_summary(evaluation.cold),
        cold_models=sections.models_table(evaluation.cold.models if evaluation.cold else {}),
        not_measured=evaluation.not_measured,
        paired=charts.forest(sections.differences(evaluation.paired, ("ndcg@10", "recall@10"))),
        differences=differences,
        slices=sections.slices_chart(evaluation.slices),
        action=sections.action_summary(evaluation.action),
        action_rows=sections.action_rows(evaluation.action),
        curves=sections.curves_chart(evaluation.training),
        drift=sections.drift_rows(drift) if drift else [],
        activity=charts.activity(drift.activity.before, drift.activity.now)
        if drift and drift.activity
        else "",
        codebook=codebook,
        usage=charts.code_usage(codebook.usage_counts) if codebook and codebook.usage_counts else "",
        samples=evaluation.samples[:SAMPLES],
        history_length=HISTORY,
        answer_length=ANSWERS,
        dataset=inputs.dataset,
        funnel=sections.funnel(inputs.dataset),
        facts=list(_run_facts(inputs)),
        recipe=list(inputs.recipe.rows()) if inputs.recipe else [],
        changes=inputs.recipe.changes if inputs.recipe else {},
        versions=[*_flatten(inputs.bundle), *inputs.packages.items()],
    )
    write_atomic(Path(output), page)


def package_versions() -> dict[str, str]:
    """Versions of this project and of the packages that decide what a model is."""
    return {name: version(name) for name in PACKAGES}


def _run_facts(inputs: ReportInputs) -> Iterator[tuple[str, str]]:
    """What names this run: when, which release, from which recipe, data and code."""
    evaluation, dataset = inputs.evaluation, inputs.dataset
    yield from _flatten({**inputs.run, "release": evaluation.release})
    if inputs.recipe:
        yield "recipe", inputs.recipe.origin
    counts = {"interactions": dataset.get("kept", {}).get("interactions")}
    counts |= {name: dataset.get(name) for name in ("users", "items")}
    yield from _flatten({
        "data": ", ".join(f"{count:,} {name}" for name, count in counts.items() if isinstance(count, int)),
        "data digest": inputs.bundle.get("data"),
    })  # fmt: skip


def _flatten(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and values of nested facts; empty ones are left out."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key} ")
        elif value not in (None, ""):
            yield f"{prefix}{key}", str(value)
