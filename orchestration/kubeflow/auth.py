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
    """Secrets come from the environment or from a file, never from a command line."""

    method: AuthMethod = AuthMethod.NONE
    secret: str = ""  # the token or the cookie ("authservice_session=..." or "oauth2_proxy_kubeflow=...")
    file: Path | None = None  # holds it instead; for in-cluster, a projected token at an unusual path
    ca: str = ""  # certificates that the server's must be signed by; "" for the system's

    @classmethod
    def from_options(
        cls, method: AuthMethod | None, token: str, cookie: str, file: Path | None, ca: str
    ) -> Credentials:
        """Credentials from command-line options; a token without a method means the method token."""
        method = method or (AuthMethod.TOKEN if token else AuthMethod.NONE)
        return cls(method, cookie if method is AuthMethod.SESSION else token, file, ca)

    def client_options(self) -> dict[str, Any]:
        """Arguments of kfp.Client; an AuthError if there is no token or cookie, or its file can't be read."""
        options: dict[str, Any] = {"ssl_ca_cert": self.ca} if self.ca else {}
        if self.method is AuthMethod.IN_CLUSTER:
            from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

            path = self.file or PROJECTED_TOKEN
            _read_secret(path)  # an error now is clearer than one at the first request
            options["credentials"] = ServiceAccountTokenVolumeCredentials(str(path))
        elif self.method is not AuthMethod.NONE:
            secret = _read_secret(self.file) if self.file else self.secret
            name = "TOKEN" if self.method is AuthMethod.TOKEN else "COOKIE"
            if not secret:
                raise AuthError(
                    f"--auth {self.method} needs KF_PIPELINES_{name} in the environment, or --secret-file "
                    "with a file that holds it."
                )
            options["existing_token" if name == "TOKEN" else "cookies"] = secret
        return options


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
