"""What starts often starts fast: commands load no model code, servers no library that only training needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

TRAINING = ("great_expectations", "kfp", "scipy", "sentence_transformers", "sklearn")


@pytest.mark.parametrize(
    ("module", "libraries"),
    [
        ("pipeline", ("great_expectations", "pandas", "scipy", "sklearn", "torch")),
        ("serving.torchserve.handler", TRAINING),
        ("serving.asgi.server", TRAINING),
    ],
)
def test_a_module_leaves_out_what_is_slow_to_import(module: str, libraries: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & {set(libraries)}))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
