"""How a command authenticates to Kubeflow Pipelines."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError

PROJECTED_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")  # where Kubeflow mounts it in notebooks


class AuthError(UserError, ValueError):
    """A token or cookie is missing or can't be read; the message is one sentence."""


class AuthMethod(enum.StrEnum):
    """Ways to authenticate.

    none: nothing, as behind a forwarded port; without a host, the kubeconfig counts.
    token: a bearer token, of a service account or of an identity provider.
    in-cluster: the token that Kubernetes projects into a pod, read again as it is renewed.
    session: the cookie of a browser session, if a multi-user Kubeflow has no other way in.
    """

    NONE = "none"
    TOKEN = "token"  # noqa: S105 - a name
    IN_CLUSTER = "in-cluster"
    SESSION = "session"


@dataclass(frozen=True)
class Credentials:
    """Secrets come from the environment or from a file, never from a command line.

    Attributes:
        method: how to authenticate.
        secret: the token or the cookie ("authservice_session=..." or "oauth2_proxy_kubeflow=...").
        file: a file that holds it instead; for in-cluster, a projected token that is not at its usual path.
        ca: certificates that the server's must be signed by; "" for the system's.
    """

    method: AuthMethod = AuthMethod.NONE
    secret: str = ""
    file: Path | None = None
    ca: str = ""

    @classmethod
    def from_options(
        cls, method: AuthMethod | None, token: str, cookie: str, file: Path | None, ca: str
    ) -> Credentials:
        """Credentials from command-line options; a token without a method means the method token."""
        method = method or (AuthMethod.TOKEN if token else AuthMethod.NONE)
        return cls(method, cookie if method is AuthMethod.SESSION else token, file, ca)

    def client_options(self) -> dict[str, Any]:
        """Arguments of kfp.Client.

        Raises:
            AuthError: there is no token or cookie, or its file can't be read or is empty.
        """
        options: dict[str, Any] = {"ssl_ca_cert": self.ca} if self.ca else {}
        match self.method:
            case AuthMethod.TOKEN:
                options["existing_token"] = self._secret("KF_PIPELINES_TOKEN")
            case AuthMethod.SESSION:
                options["cookies"] = self._secret("KF_PIPELINES_COOKIE")
            case AuthMethod.IN_CLUSTER:
                from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

                path = self.file or PROJECTED_TOKEN
                _read_secret(path)  # an error now is clearer than one at the first request
                options["credentials"] = ServiceAccountTokenVolumeCredentials(str(path))
        return options

    def _secret(self, variable: str) -> str:
        secret = _read_secret(self.file) if self.file else self.secret
        if not secret:
            raise AuthError(
                f"--auth {self.method} needs {variable} in the environment, or --secret-file with a file "
                "that holds it."
            )
        return secret


def _read_secret(path: Path) -> str:
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AuthError(
            f"{path} can't be read ({type(error).__name__}): it should hold the token or the cookie."
        ) from error
    if not secret or "\n" in secret:
        raise AuthError(f"{path} should hold one line, the token or the cookie.")
    return secret
