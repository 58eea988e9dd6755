"""Homes: where each dataset's releases and server are on this machine, in `.car` of the current folder.

`car run` gives every dataset a home of its own, `.car/NAME`, and selects it: later commands find its registry
and its server without options, and `--home` selects another.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextvars import ContextVar
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import UserError
from common.files import write_atomic

WORK = Path(".car")  # homes, runs and caches: `make clean` removes it
RECORD = "home.json"  # of a home, in its folder
SELECTED = "selected-home"  # file with the name of the home that the last run used
FIRST = "movielens"  # the home before any run
MAX_LABEL = 40  # characters of a folder's name
requested: ContextVar[str] = ContextVar("requested", default="")  # `car --home`; "" is the last run's


class HomeError(UserError):
    """There is no such home; the message names those that there are."""


class Home(BaseModel):
    """One dataset's home. Paths are relative to the folder that `.car` is in, so that both can move."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Its folder below `.car`."""
    data: str
    """What was run on: the `--data` of `car run`."""
    data_dir: str
    """The folder of the data; empty for data that is fetched."""
    registry: str
    """The releases: a folder, or gs://bucket/prefix."""
    serving: str
    """The server's folder."""

    @classmethod
    def of_data(cls, data: str, data_dir: str = "", registry: str = "", serving: str = "") -> Home:
        """The home of a dataset: two folders never share one, whatever they are called.

        Args:
            registry, serving: other places than the home's own.
        """
        name = data
        if data_dir:
            folder, here = Path(data_dir).expanduser().resolve(), Path.cwd()
            label = re.sub(r"[^\w.-]+", "-", folder.name)[:MAX_LABEL].strip("-.") or data
            path = folder.relative_to(here) if folder.is_relative_to(here) else folder
            name = f"{label}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
        return cls(
            name=name,
            data=data,
            data_dir=data_dir,
            registry=registry or str(WORK / name / "registry"),
            serving=serving or str(WORK / name / "serving"),
        )

    @classmethod
    def load(cls, name: str | None = None) -> Home:
        """The home of this name; without one, the requested home, or the one that the last run selected.

        Raises:
            HomeError: there is none, or its record is damaged.
        """
        name = name or requested.get()
        if not name:
            try:
                name = (WORK / SELECTED).read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError):
                return cls.of_data(FIRST)
        record = WORK / Path(name).name / RECORD  # `.car/NAME` is a name too
        try:
            return cls.model_validate_json(record.read_bytes())
        except OSError as error:
            homes = ", ".join(home.name for home in cls.all()) or "none yet; `car run` makes one"
            raise HomeError(f"There is no home {name!r} in {WORK.resolve()}; there are: {homes}.") from error
        except ValidationError as error:
            raise HomeError(f"{record} is damaged; run the pipeline on that dataset again.") from error

    @classmethod
    def all(cls) -> list[Home]:
        """Every home of the current folder."""
        return [cls.load(path.parent.name) for path in sorted(WORK.glob(f"*/{RECORD}"))]

    def select(self) -> None:
        """Write the home's record, and make it the one that commands use from now on."""
        write_atomic(WORK / self.name / RECORD, self.model_dump_json(indent=2) + "\n")
        write_atomic(WORK / SELECTED, self.name + "\n")
