"""Homes: where each dataset's releases and servers are on this machine, in `.car` of the current folder.

`car run` gives every dataset a home of its own, `.car/NAME`, and selects it: later commands find its registry
and its servers, one for each channel, without options, and `--home` selects another.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import UserError
from common.files import write_atomic

WORK = Path(".car")  # homes, runs and caches: `make clean` removes it
RUNS = "runs"  # folders of local runs, in WORK; each is named by its run id
RECORD = "home.json"  # of a home, in its folder
MAPPING = "dataset.json"  # of one's own data, in its folder
SELECTED = "selected-home"  # file with the name of the home that the last run used
FIRST = "movielens"  # the home before any run
SERVING = "serving"  # of a home: the folders of its servers, by channel
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
    servers: dict[str, str] = {}
    """Folders of servers that stand elsewhere than `server` says, by channel."""

    @classmethod
    def of_data(cls, data: str, data_dir: str = "", registry: str = "") -> Home:
        """The home of a dataset: two folders never share one, whatever they are called.

        Args:
            registry: another registry than the home's own; the dataset has another home for it.
        """
        label, paths = data, list[Path | str]()
        if data_dir:
            folder = _relative(Path(data_dir))
            label = re.sub(r"[^\w.-]+", "-", folder.name)[:MAX_LABEL].strip("-.") or data
            paths.append(folder)
        name = _name(label, paths)
        if registry and (place := registry if "://" in registry else _relative(Path(registry))) != (
            WORK / name / "registry"
        ):
            name = _name(label, [*paths, place])
        home = cls(
            name=name, data=data, data_dir=data_dir, registry=registry or str(WORK / name / "registry")
        )
        with suppress(OSError, ValidationError):  # a damaged record is written anew
            home = home.model_copy(update={"servers": cls._read(name).servers})
        return home

    def server(self, channel: str) -> Path:
        """The folder of the server that answers for a channel."""
        return Path(self.servers.get(channel) or WORK / self.name / SERVING / channel)

    def with_server(self, channel: str, folder: str) -> Home:
        """The same home whose server of a channel is in that folder; "" changes nothing."""
        return self.model_copy(update={"servers": self.servers | {channel: folder}}) if folder else self

    def channels(self) -> list[str]:
        """The channels that have, or had, a server in this home."""
        folders = (WORK / self.name / SERVING).glob("*/")
        return sorted({*self.servers, *(path.name for path in folders)})

    @property
    def mapping(self) -> Path | None:
        """The dataset.json that says what the columns of the home's own files are; None if there is none."""
        path = Path(self.data_dir) / MAPPING
        return path if self.data_dir and path.is_file() else None

    @property
    def is_recorded(self) -> bool:
        """Whether a run has made the home; the first one is taken for granted before any run."""
        return (WORK / self.name / RECORD).is_file()

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
        try:
            return cls._read(Path(name).name)  # `.car/NAME` is a name too
        except OSError as error:
            homes = ", ".join(sorted(path.parent.name for path in WORK.glob(f"*/{RECORD}")))
            raise HomeError(
                f"There is no home {name!r} in {WORK.resolve()}; there are: "
                f"{homes or 'none yet; `car run` makes one'}."
            ) from error
        except ValidationError as error:
            record = WORK / Path(name).name / RECORD
            raise HomeError(f"{record} is damaged; run the pipeline on that dataset again.") from error

    @classmethod
    def all(cls, problems: list[str]) -> list[Home]:
        """Every home of the current folder; damaged ones are left out, with a sentence each in `problems`."""
        homes = []
        for record in sorted(WORK.glob(f"*/{RECORD}")):
            try:
                homes.append(cls.load(record.parent.name))
            except HomeError as error:
                problems.append(str(error))
        return homes

    @classmethod
    def all_servers(cls, problems: list[str]) -> list[Path]:
        """Folders of the servers of all homes of the current folder, also of damaged ones; see `all`."""
        elsewhere = [Path(folder) for home in cls.all(problems) for folder in home.servers.values()]
        return sorted({*elsewhere, *WORK.glob(f"*/{SERVING}/*/")})

    @classmethod
    def _read(cls, name: str) -> Home:
        return cls.model_validate_json((WORK / name / RECORD).read_bytes())

    def select(self) -> None:
        """Write the home's record, and make it the one that commands use from now on."""
        write_atomic(WORK / self.name / RECORD, self.model_dump_json(indent=2) + "\n")
        write_atomic(WORK / SELECTED, self.name + "\n")


def _relative(path: Path) -> Path:
    """A path relative to the current folder if it is below it, so that both can move; else absolute."""
    path, here = path.expanduser().resolve(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _name(label: str, paths: list[Path | str]) -> str:
    """A home's name: the label, and a digest of the paths if there are any."""
    if not paths:
        return label
    return f"{label}-{hashlib.sha256(b':'.join(map(os.fsencode, paths))).hexdigest()[:8]}"


def run_folder(run_id: str) -> Path | None:
    """The folder of a local run, if it was made here and is still there."""
    folder = WORK / RUNS / Path(run_id).name
    return folder if run_id and folder.is_dir() else None
