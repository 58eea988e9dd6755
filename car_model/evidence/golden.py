"""golden.json: requests and the challenger's answers, to replay on a server."""

from __future__ import annotations

from typing import Any, ClassVar

from car_model.evidence.base import EvidenceFile


class GoldenRequests(EvidenceFile):
    """Holdout histories and edge cases, as the recommender's JSON API has them."""

    step: ClassVar[str] = "evaluate"

    requests: tuple[dict[str, Any], ...]
    """Every feature is used: thinking, k, exclude, unknown ids, no history, ranking by action."""
    answers: tuple[dict[str, Any], ...]
    """One for each request, answered one at a time."""
