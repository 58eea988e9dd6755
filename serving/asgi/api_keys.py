"""The keys that callers of a server on a network show: read from a file, compared in constant time.

The file is a mounted Secret with one key per line, so that an old and a new key are both valid while callers
change over. It is read again whenever it changes. Only digests of keys stay in memory.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from pathlib import Path

from serving.errors import ServingError

MIN_CHARACTERS = 32  # 192 random bits in base64; shorter ones are passwords


class ApiKeys:
    """The valid keys of one file. Raises ServingError if it is missing, or holds no key or a short one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version: tuple[int, int, int] | None = None
        self._digests: list[bytes] = []
        self._read()

    def accept(self, authorization: str) -> bool:
        """Whether an Authorization header carries a valid key. A broken file has no valid keys."""
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return False
        digest = _digest(key.strip())
        try:
            if self._version != self._file_version():
                self._read()
        except (ServingError, OSError):
            return False
        matches = [hmac.compare_digest(digest, valid) for valid in self._digests]  # all of them, always
        return any(matches)

    def _read(self) -> None:
        self._version, self._digests = None, []
        try:
            version = self._file_version()
            keys = [key for line in self.path.read_text("ascii").splitlines() if (key := line.strip())]
        except (OSError, UnicodeDecodeError) as error:
            raise ServingError(f"The keys in {self.path} can't be read ({type(error).__name__}).") from error
        if not keys or any(len(key) < MIN_CHARACTERS for key in keys):
            raise ServingError(
                f"{self.path} must hold one key per line, each of at least {MIN_CHARACTERS} characters; make "
                "one with: python -c 'import secrets; print(secrets.token_urlsafe(48))'."
            )
        self._version, self._digests = version, [_digest(key) for key in keys]

    def _file_version(self) -> tuple[int, int, int]:
        stat = self.path.stat()  # follows the links that a Secret's update swaps
        return stat.st_ino, stat.st_mtime_ns, stat.st_size


def require_keys(host: str, path: Path | None) -> ApiKeys | None:
    """Read the file of keys; None if there is no file and only this machine (or pod) can call.

    Raises ServingError if a network could call and there is no file.
    """
    if path is not None:
        return ApiKeys(path)
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not is_loopback:
        raise ServingError(
            f"A server on {host} can be called from a network: name a file of keys with --keys, or listen on "
            "127.0.0.1."
        )
    return None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
