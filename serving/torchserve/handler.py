"""The TorchServe shell around the Recommender: batches of bodies in, JSON answers out.

TorchServe imports this file from inside the archive under the name `handler`, so it must hold exactly
one class and import everything else from the installed packages.
"""

from __future__ import annotations

import logging
import os
from http import HTTPStatus
from pathlib import Path
from typing import Any

import torch

from serving.answering.answer import HEALTH
from serving.archive.load import load_unpacked
from serving.metrics.counters import Metrics
from serving.metrics.observer import InstrumentedResponder
from serving.torchserve.config import LOAD_FAILURE, TORCH_THREADS
from serving.torchserve.metrics_exporter import FrontEndExporter

logger = logging.getLogger(__name__)


class CarHandler:
    """One worker's recommender. A broken request gets an error; the others of its batch are answered."""

    def initialize(self, context: Any) -> None:
        """Load the bundle next to this file; an error is logged in one line and ends the worker."""
        settings = (context.model_yaml_config or {}).get("handler", {})
        torch.set_num_threads(int(os.environ.get(TORCH_THREADS, settings.get("torchThreads", 1))))
        folder = Path(context.system_properties["model_dir"])
        try:
            self.recommender = load_unpacked(folder)
        except Exception as error:
            logger.error("%s %s: %s", LOAD_FAILURE, type(error).__name__, " ".join(str(error).split()))
            raise
        metrics = Metrics()
        self.respond = InstrumentedResponder(self.recommender, metrics, probe=HEALTH)
        if context.metrics is not None:
            FrontEndExporter(metrics.registry, context).start()

    def handle(self, batch: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer every request of a batch, in order; each gets its own status code."""
        replies = self.respond([row.get("body", row.get("data")) for row in batch])
        for index, (status, _) in enumerate(replies):
            context.set_response_content_type(index, "application/json")
            if status != HTTPStatus.OK:
                context.set_response_status(status, HTTPStatus(status).phrase, index)
        return [body for _, body in replies]
