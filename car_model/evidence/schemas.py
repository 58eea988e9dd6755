"""The evidence files, by the names of their schemas in docs/schemas."""

from __future__ import annotations

from car_model.evidence.base import EvidenceFile
from car_model.evidence.codebook import CodebookHealth
from car_model.evidence.data_profile import DataProfile
from car_model.evidence.drift import DataDrift
from car_model.evidence.evaluation import Evaluation, GoldenRequests
from car_model.evidence.training import RankerSummary, RecipeRecord, TrainingCurves
from car_model.evidence.verdict import Verdict

FILES: dict[str, type[EvidenceFile]] = {
    "codebook_health": CodebookHealth,
    "data_drift": DataDrift,
    "data_profile": DataProfile,
    "evaluation": Evaluation,
    "golden": GoldenRequests,
    "ranker_summary": RankerSummary,
    "recipe": RecipeRecord,
    "training_curves": TrainingCurves,
    "verdict": Verdict,
}
