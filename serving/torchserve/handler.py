"""The TorchServe shell around the Recommender: batches of bodies in, JSON answers out.

TorchServe imports this file from inside the archive under the name `handler`, so it must hold exactly
one class and take everything else from the installed packages.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch

from serving.answering.answer import OK, REASONS
from serving.archive.load import load
from serving.metrics.counters import Metrics
from serving.metrics.observer import InstrumentedResponder
from serving.torchserve.config import LOAD_FAILURE
from serving.torchserve.metrics_exporter import FrontEnd

logger = logging.getLogger(__name__)


class CarHandler:
    """One worker's recommender; a broken request spoils its own answer and no other in the batch."""

    def initialize(self, context: Any) -> None:
        """Load the bundle that lies beside this file; an error is logged in one line and ends the worker."""
        settings = (context.model_yaml_config or {}).get("handler", {})
        torch.set_num_threads(int(os.environ.get("CAR_TORCH_THREADS", settings.get("torchThreads", 1))))
        folder = Path(context.system_properties["model_dir"])
        try:
            self.recommender = load(folder)
        except Exception as error:
            logger.error("%s %s: %s", LOAD_FAILURE, type(error).__name__, " ".join(str(error).split()))
            raise
        metrics = Metrics()
        self.respond = InstrumentedResponder(self.recommender, metrics)
        if context.metrics is not None:
            FrontEnd(metrics.registry, context).start()

    def handle(self, batch: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer every request of a batch, in order; each gets its own status code."""
        bodies = [row.get("body", row.get("data")) for row in batch]
        replies = self.respond(bodies)
        for index, (status, _) in enumerate(replies):
            context.set_response_content_type(index, "application/json")
            if status != OK:
                context.set_response_status(status, REASONS[status], index)
        return [answer for _, answer in replies]
