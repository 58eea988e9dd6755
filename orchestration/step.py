"""The decorator of every step: it runs in the project's image, which holds every library that steps need."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kfp import dsl

if TYPE_CHECKING:
    from kfp.dsl.python_component import PythonComponent

IMAGE = os.environ.get("CAR_IMAGE", "car-on-kubeflow:0.1.0")
FAILURE = "The step {step} failed: {sentence}"  # the last line of a failed step's own output
FAILURE_LINE = re.compile(r"The step (?P<step>[a-z0-9-]+) failed: (?P<sentence>.+)")


def step(function: Callable[..., Any]) -> PythonComponent:
    """A KFP component whose process is `orchestration.step_main`: an expected failure is one sentence."""
    component = dsl.component(function, base_image=IMAGE, install_kfp_package=False)
    container = component.component_spec.implementation.container
    # KFP's executor stays named: kfp.local refuses commands without it.
    executor = "kfp.dsl.executor_main"
    container.command = [
        part.replace(executor, f"orchestration.step_main {executor}") for part in container.command
    ]
    return component
