"""Prove, before a release exists, that a real TorchServe can serve the archive: a throw-away server."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.digests import file_digest
from serving.answering.golden import Golden
from serving.archive.build import ArchiveError, ArchiveProvenance
from serving.errors import ServingError
from serving.torchserve.replay import GoldenReport, replay
from serving.torchserve.server import TorchServe
from serving.torchserve.versions import register_and_wait

BAD_REQUESTS: dict[str, bytes] = {
    "no body": b"",
    "not JSON": b"recommend me something",
    "not UTF-8": b'{"history": ["\xff\xfe"]}',
    "not an object": b"[]",
    "deeply nested": b"[" * 50_000,
    "history is no list": b'{"history": "50"}',
    "history of objects": b'{"history": [{"item": 50}]}',
    "k is zero": b'{"history": [], "k": 0}',
    "k is a word": b'{"history": [], "k": "ten"}',
    "k is huge": b'{"history": [], "k": 1000000000000}',
    "k is NaN": b'{"history": [], "k": NaN}',
    "thinking is negative": b'{"history": [], "thinking": -1}',
    "exclude is no list": b'{"history": [], "exclude": 7}',
}


class InfraValidationError(ServingError):
    """The archive cannot be served as it was evaluated; the message is the reason."""


@dataclass(frozen=True)
class InfraReport:
    """What was proven, and how long it took (seconds; latencies in milliseconds)."""

    release: str
    version: str
    archive_sha256: str
    provenance: ArchiveProvenance
    golden: GoldenReport
    bad_requests_refused: int
    server_start_s: float
    model_ready_s: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"golden": self.golden.as_dict()}


def infra_validate(archive: Path, golden: Path, expected_release: str, work: Path) -> InfraReport:
    """Serve an archive on free loopback ports, replay the golden requests, send bad ones, stop.

    Args:
        archive: a .mar of `build_archive`.
        golden: golden.json from the evaluation.
        expected_release: digest that every answer must name.
        work: folder for the server's files; its logs stay there for the reader of a failure.

    Raises:
        InfraValidationError: with the reason, whatever it is.
    """
    try:
        expected = Golden.read(golden)
        return _validate(archive, expected, expected_release, work)
    except (ServingError, ArchiveError) as error:
        if isinstance(error, InfraValidationError):
            raise
        raise InfraValidationError(f"{archive.name} cannot be served: {error}") from error
    finally:
        TorchServe.stop(work)


def _validate(archive: Path, golden: Golden, expected_release: str, work: Path) -> InfraReport:
    TorchServe.stop(work)  # what a killed validation may have left
    started = time.monotonic()
    server = TorchServe.start(work)
    up = time.monotonic()
    info = register_and_wait(server, archive)
    ready = time.monotonic()
    report = replay(server.client, golden, expected_release, info.version)
    if not report.passed:
        raise InfraValidationError(f"{archive.name} does not answer as evaluated: {report.sentence()}.")
    refused = _refuse_bad_requests(server, info.version)
    if not replay(server.client, golden, expected_release, info.version, samples=0).passed:
        raise InfraValidationError(f"{archive.name} answers differently after it was sent bad requests.")
    return InfraReport(
        expected_release,
        info.version,
        file_digest(archive),
        info.provenance,
        report,
        refused,
        round(up - started, 2),
        round(ready - up, 2),
    )


def _refuse_bad_requests(server: TorchServe, version: str) -> int:
    for name, body in BAD_REQUESTS.items():
        reply = server.client.send(body, version)
        if reply.status_code != 400:
            raise InfraValidationError(
                f"A bad request ({name}) was answered with {reply.status_code}, expected 400."
            )
        try:
            sentence = json.loads(reply.content)["error"]
        except (ValueError, KeyError, TypeError):
            sentence = ""
        if not sentence:
            raise InfraValidationError(
                f"A bad request ({name}) was refused without a sentence that says why."
            )
    return len(BAD_REQUESTS)
