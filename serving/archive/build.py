"""Build the .mar that TorchServe loads: our handler, the bundle, and the name of its release.

The TorchServe model version is made from digests, not from a counter. So the archive that was validated is
byte for byte the one that is deployed, a rollback finds its old archive unchanged, a changed handler gives
another version, and the version that a server lists names its release.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

from common.digests import file_digest, json_digest, tree_files
from common.files import atomic_path
from serving.errors import ServingError

MODEL_NAME = "car"
HANDLER = Path(__file__).parents[1] / "torchserve" / "handler.py"
MANIFEST = "MAR-INF/MANIFEST.json"
SETTINGS = "model-config.yaml"
BUNDLE = "bundle"
HEADER = "release.json"  # the release and `packed_digest`, which `load_unpacked` compares
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold


class ArchiveError(ServingError):
    """The archive cannot be built or read."""


class WorkerConfig(BaseModel):
    """How TorchServe runs one model version (model-config.yaml inside the archive).

    Bounded: a report in the registry names the settings, and may be somebody else's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    workers: int = Field(default=1, ge=1, le=64)
    """Worker processes, each with a copy of the model."""
    batch_size: int = Field(default=8, ge=1, le=1024)
    """Requests that a worker answers together at most."""
    max_batch_delay_ms: int = Field(default=1, ge=0, le=1000)
    """Milliseconds that a request may wait for others to join its batch."""
    response_timeout_s: int = Field(default=30, ge=1, le=600)
    """Seconds after which TorchServe replaces a worker that does not answer."""
    torch_threads: int = Field(default=1, ge=1, le=256)
    """Threads that PyTorch uses in a worker; the variable CAR_TORCH_THREADS overrides it."""

    def to_yaml(self) -> str:
        """Render in TorchServe's vocabulary."""
        return yaml.safe_dump(
            {
                "minWorkers": self.workers,
                "maxWorkers": self.workers,
                "batchSize": self.batch_size,
                "maxBatchDelay": self.max_batch_delay_ms,
                "responseTimeout": self.response_timeout_s,
                "handler": {"torchThreads": self.torch_threads},
            }
        )

    @classmethod
    def from_yaml(cls, text: str) -> WorkerConfig:
        """Read what `to_yaml` wrote. Raises ValueError, KeyError, TypeError or yaml.YAMLError."""
        values = yaml.safe_load(text)
        return cls(
            workers=values["minWorkers"],
            batch_size=values["batchSize"],
            max_batch_delay_ms=values["maxBatchDelay"],
            response_timeout_s=values["responseTimeout"],
            torch_threads=values["handler"]["torchThreads"],
        )


@dataclass(frozen=True)
class ArchiveProvenance:
    """What determines an archive's bytes besides the bundle and the name of its release."""

    handler: str
    """SHA-256 of handler.py."""
    workers: str
    """Text of model-config.yaml."""
    archiver: str
    """Version of torch-model-archiver."""

    def describe_changes(self, current: ArchiveProvenance) -> str:
        """Say in words what differs in `current`; "" if nothing does."""
        sentences = {
            "handler": "its handler changed",
            "workers": "its worker settings changed",
            "archiver": f"torch-model-archiver is {current.archiver} instead of {self.archiver}",
        }
        return " and ".join(
            text for name, text in sentences.items() if getattr(self, name) != getattr(current, name)
        )


@dataclass(frozen=True)
class ArchiveInfo:
    """What an archive says about itself."""

    name: str
    version: str
    release: str
    provenance: ArchiveProvenance


def model_version(release: str, workers: WorkerConfig) -> str:
    """Name a release within TorchServe: 12 characters of its digest, 6 of the handler's and settings'.

    Raises ArchiveError if the release's name cannot stand in a URL path.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", release):
        raise ArchiveError(f"{release!r} cannot name a model version: use letters, digits, '-' and '_'.")
    shell = json_digest([file_digest(HANDLER), workers.to_yaml()])
    return f"{release[:12]}-{shell[:6]}"


def build_archive(
    bundle: Path, output_dir: Path, release: str, name: str = MODEL_NAME, workers: WorkerConfig | None = None
) -> Path:
    """Package a bundle folder as `<output_dir>/<name>.mar`; equal input gives equal bytes.

    An archive of the same name is replaced. Raises ArchiveError if the bundle is incomplete or
    torch-model-archiver fails.
    """
    workers = workers or WorkerConfig()
    if not (bundle / "bundle.json").is_file():
        raise ArchiveError(f"{bundle} is not a bundle: it has no bundle.json.")
    output_dir.mkdir(parents=True, exist_ok=True)
    target = output_dir / f"{name}.mar"
    with tempfile.TemporaryDirectory(prefix="car-archive-") as folder, atomic_path(target) as partial:
        work = Path(folder)
        extra = work / "extra"
        extra.mkdir()
        (extra / BUNDLE).symlink_to(bundle.resolve(), target_is_directory=True)
        header = {"release": release, "digest": packed_digest(bundle, release)}
        (extra / HEADER).write_text(json.dumps(header), "utf-8")
        (work / SETTINGS).write_text(workers.to_yaml(), "utf-8")
        command = [
            *(sys.executable, "-m", "model_archiver.model_packaging"),
            *("--model-name", name, "--version", model_version(release, workers), "--handler", str(HANDLER)),
            *("--extra-files", str(extra), "--config-file", str(work / SETTINGS)),
            *("--archive-format", "zip-store", "--export-path", str(work)),
        ]
        # The archiver builds in <temporary folder>/<name> and deletes what it finds there: give it its own.
        (work / "tmp").mkdir()
        environment = os.environ | {"TMPDIR": str(work / "tmp")}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if result.returncode:
            last_line = (result.stderr.strip() or "no message").splitlines()[-1]
            raise ArchiveError(f"torch-model-archiver could not package {bundle}: {last_line}")
        _normalise(work / f"{name}.mar", partial)
    return target


def _normalise(raw: Path, target: Path) -> None:
    """Rewrite an archive without the times at which its files and its manifest were made."""
    with zipfile.ZipFile(raw) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as sink:
        for name in sorted(source.namelist()):
            entry = zipfile.ZipInfo(name, date_time=EPOCH)
            entry.external_attr = 0o644 << 16
            if name == MANIFEST:
                manifest = json.loads(source.read(name)) | {"createdOn": "01/01/1980 00:00:00"}
                sink.writestr(entry, json.dumps(manifest, indent=2, sort_keys=True))
                continue
            entry.file_size = source.getinfo(name).file_size
            with source.open(name) as reader, sink.open(entry, "w") as writer:
                shutil.copyfileobj(reader, writer)


def packed_digest(bundle: Path, release: str) -> str:
    """SHA-256 (hex) of a bundle's files and the name of its release."""
    return json_digest([release, tree_files(bundle)])


def read_archive(archive: Path) -> ArchiveInfo:
    """Read what an archive says about itself. Raises ArchiveError if the file is not one of our archives."""
    try:
        with zipfile.ZipFile(archive) as source:
            manifest = json.loads(source.read(MANIFEST))
            release = json.loads(source.read(HEADER))["release"]
            handler = hashlib.sha256(source.read(HANDLER.name)).hexdigest()
            settings = source.read(SETTINGS).decode()
            provenance = ArchiveProvenance(handler, settings, manifest["archiverVersion"])
        model = manifest["model"]
        return ArchiveInfo(model["modelName"], model["modelVersion"], release, provenance)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ArchiveError(f"{archive} is not a CAR model archive: {error}.") from error
