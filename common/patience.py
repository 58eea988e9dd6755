"""How long calls over the network are repeated while nobody answers."""

from __future__ import annotations

import os

STEP_POD = "KFP_POD_UID"  # Kubeflow Pipelines sets it in the pod of a step
AT_A_TERMINAL, IN_A_STEP = 30.0, 300.0  # seconds


def in_step_pod() -> bool:
    """Whether this is a step of a run on a cluster."""
    return bool(os.environ.get(STEP_POD))


def network_patience() -> float:
    """Seconds to repeat a call for.

    A person at a terminal wants to hear of a wrong address soon. A step on a cluster must outlast an outage
    by itself: Kubeflow Pipelines tries a step again only if its pod was lost, not if it failed.
    """
    return IN_A_STEP if in_step_pod() else AT_A_TERMINAL
