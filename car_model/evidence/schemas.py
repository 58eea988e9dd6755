"""JSON schemas of the evidence, for docs/schemas."""

from __future__ import annotations

from typing import Any

from car_model.evidence.base import EvidenceFile
from car_model.evidence.codebook import CodebookHealth
from car_model.evidence.data_profile import DataProfile
from car_model.evidence.drift import DataDrift
from car_model.evidence.evaluation import Evaluation, GoldenRequests
from car_model.evidence.training import RankerSummary, TrainingCurves
from car_model.evidence.verdict import Verdict

FILES: dict[str, type[EvidenceFile]] = {
    "codebook_health": CodebookHealth,
    "data_drift": DataDrift,
    "data_profile": DataProfile,
    "evaluation": Evaluation,
    "golden": GoldenRequests,
    "ranker_summary": RankerSummary,
    "training_curves": TrainingCurves,
    "verdict": Verdict,
}


def schemas() -> dict[str, dict[str, Any]]:
    """A JSON schema for each evidence file, by the name of the file without its suffix."""
    return {name: model.model_json_schema(mode="serialization") for name, model in FILES.items()}
