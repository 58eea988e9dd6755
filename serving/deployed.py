"""The note of what a server serves: the release that a restart brings back, and the digest of its archive."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from car_model.digests import file_digest
from serving.state import ServingError, StateDir, read_json, write_private


@dataclass(frozen=True)
class Deployed:
    """What deployed.json says.

    Attributes:
        release: full digest.
        version: TorchServe's name of it.
        archive: file name within the model store.
        sha256: of that archive.
    """

    release: str
    version: str
    archive: str
    sha256: str

    @classmethod
    def read(cls, state: StateDir) -> Deployed | None:
        """Read the note; None where nothing was deployed.

        Raises:
            ServingError: where the file is damaged.
        """
        found = read_json(state.deployed)
        if found is None:
            return None
        values = {field.name: found.get(field.name) for field in fields(cls)}
        texts = {name: value for name, value in values.items() if isinstance(value, str) and value}
        if len(texts) < len(values) or Path(texts["archive"]).name != texts["archive"]:
            raise ServingError(f"{state.deployed} is damaged; deploy the release again.")
        return cls(**texts)

    @classmethod
    def legible(cls, state: StateDir) -> Deployed | None:
        """Read the note; None also where it is damaged, for those who are about to write it anew."""
        try:
            return cls.read(state)
        except ServingError:
            return None

    @classmethod
    def required(cls, state: StateDir) -> Deployed:
        """Read the note; a ServingError where there is none or it is damaged."""
        found = cls.read(state)
        if found is None:
            raise ServingError(
                f"Nothing was deployed to {state.root} yet; run the pipeline or deploy a release."
            )
        return found

    def write(self, state: StateDir) -> None:
        """Replace the note in one step."""
        write_private(state.deployed, json.dumps(asdict(self), indent=2) + "\n")

    def checked(self, state: StateDir) -> Path:
        """The archive in the model store, hashed again.

        Raises:
            ServingError: where it is missing, cannot be read or is not what was deployed.
        """
        archive = state.store / self.archive
        try:
            whole = file_digest(archive) == self.sha256
        except OSError:
            whole = False
        if not whole:
            raise ServingError(f"{archive} is missing or not what was deployed; deploy the release again.")
        return archive
