"""The keys that callers of a server on a network show: read from a file, compared in constant time.

The file is a mounted Secret: one key a line, so that an old and a new one are valid while callers change
over. It is read again whenever it changes. Only digests of keys are held in memory.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from pathlib import Path

from serving.errors import ServingError

LEAST_CHARACTERS = 32  # 192 random bits in base64; a password is no key
SCHEME = "bearer"
Stamp = tuple[int, int, int]


class Keys:
    """The valid keys of one file; whoever shows one of them is let in.

    Raises:
        ServingError: where the file is missing, holds no key, or one that is too short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: Stamp | None = None
        self._digests: list[bytes] = []
        self._read()

    def admit(self, authorization: str) -> bool:
        """Whether an Authorization header carries a valid key; no one is let in where the file is broken."""
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != SCHEME:
            return False
        shown = _digest(key.strip())
        try:
            if self._stamp != _stamp(self.path):
                self._read()
        except ServingError:
            return False
        matches = [hmac.compare_digest(shown, digest) for digest in self._digests]  # all of them, always
        return any(matches)

    def _read(self) -> None:
        stamp = _stamp(self.path)
        self._stamp, self._digests = None, []
        try:
            lines = [line.strip() for line in self.path.read_text("ascii").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ServingError(f"The keys in {self.path} can't be read ({type(error).__name__}).") from error
        keys = [line for line in lines if line]
        if not keys or any(len(key) < LEAST_CHARACTERS for key in keys):
            raise ServingError(
                f"{self.path} must hold one key a line, each of at least {LEAST_CHARACTERS} characters; make "
                "one with: python -c 'import secrets; print(secrets.token_urlsafe(48))'."
            )
        self._stamp, self._digests = stamp, [_digest(key) for key in keys]


def require_keys(host: str, keys: Path | None) -> Keys | None:
    """The keys to ask for; none are needed where only this machine (or pod) can call.

    Raises:
        ServingError: where a network could call and there is no file of keys.
    """
    if keys is not None:
        return Keys(keys)
    if not _is_loopback(host):
        raise ServingError(
            f"A server on {host} can be called from a network: name a file of keys with --keys, or listen on "
            "127.0.0.1."
        )
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()  # follows the links that a Secret's update swaps
    except OSError as error:
        raise ServingError(f"The keys in {path} can't be read ({type(error).__name__}).") from error
    return found.st_ino, found.st_mtime_ns, found.st_size
