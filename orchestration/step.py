"""The decorator of every step: it runs in the project's image, which holds every library that steps need."""

import functools
import os

from kfp import dsl

IMAGE = os.environ.get("CAR_IMAGE", "car-on-kubeflow:0.1.0")

step = functools.partial(dsl.component, base_image=IMAGE, install_kfp_package=False)
