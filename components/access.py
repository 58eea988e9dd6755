"""Who asks Kubeflow Pipelines for something, and how they prove it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp.client import set_volume_credentials as volume

IN_CLUSTER = Path("/var/run/secrets/kubeflow/pipelines/token")  # where Kubeflow projects it into notebooks


class AccessError(ValueError):
    """What proves who asks is missing or can't be read; the message is one sentence."""


class Auth(enum.StrEnum):
    """Ways to prove who asks.

    none: nothing, as behind a forwarded port; a kubeconfig counts where no host is given.
    token: a bearer token, of a service account or of an identity provider.
    in-cluster: the token that Kubernetes projects into a pod, read anew as it is renewed.
    session: the cookie of a browser's session, where a multi-user Kubeflow has no other way in.
    """

    NONE = "none"
    TOKEN = "token"  # noqa: S105 - a name
    IN_CLUSTER = "in-cluster"
    SESSION = "session"


@dataclass(frozen=True)
class Access:
    """How to prove who asks. Secrets come from the environment or from a file, never from a command line.

    Attributes:
        secret: the token or the cookie ("authservice_session=..." or "oauth2_proxy_kubeflow=...").
        file: a file that holds it instead; of a projected token, where it is not at its usual place.
        ca: certificates that the server's must come from; empty for the system's.
    """

    auth: Auth = Auth.NONE
    secret: str = ""
    file: Path | None = None
    ca: str = ""

    @classmethod
    def of(cls, auth: Auth | None, token: str, cookie: str, file: Path | None, ca: str) -> Access:
        """What a command line and its environment say; a token alone is a way to prove who asks."""
        auth = auth or (Auth.TOKEN if token else Auth.NONE)
        return cls(auth, cookie if auth is Auth.SESSION else token, file, ca)

    def options(self) -> dict[str, Any]:
        """What kfp's client takes.

        Raises:
            AccessError: no token or cookie was given, or its file can't be read or is empty.
        """
        given: dict[str, Any] = {"ssl_ca_cert": self.ca} if self.ca else {}
        if self.auth is Auth.TOKEN:
            return given | {"existing_token": self._secret("KF_PIPELINES_TOKEN")}
        if self.auth is Auth.SESSION:
            return given | {"cookies": self._secret("KF_PIPELINES_COOKIE")}
        if self.auth is Auth.IN_CLUSTER:
            path = self.file or IN_CLUSTER
            _read(path)  # now, and not where the client first needs it
            return given | {"credentials": volume.ServiceAccountTokenVolumeCredentials(str(path))}
        return given

    def _secret(self, variable: str) -> str:
        found = _read(self.file) if self.file else self.secret
        if not found:
            raise AccessError(
                f"--auth {self.auth} needs {variable} in the environment, or --secret-file with a file that "
                "holds it."
            )
        return found


def _read(path: Path) -> str:
    try:
        found = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AccessError(
            f"{path} can't be read ({type(error).__name__}): it should hold what proves who asks."
        ) from error
    if not found or "\n" in found:
        raise AccessError(f"{path} should hold one line, the token or the cookie.")
    return found
