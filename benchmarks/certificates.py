"""A certificate authority for one benchmark, and a certificate of it for 127.0.0.1."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import List

__all__ = ["make_certificates"]

_EXTENSIONS = "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n"
_NEW_KEY = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def make_certificates(folder: Path) -> Path:
    """Write ``ca.pem``, ``server.pem`` and ``server.key`` into ``folder``; returns the path of the first.

    Raises:
        RuntimeError: the program ``openssl`` is missing or fails.
    """
    (folder / "extensions").write_text(_EXTENSIONS)
    authority = ["-x509", "-subj", "/CN=benchmark CA", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem"]
    authority += ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    request = ["-subj", "/CN=127.0.0.1", "-keyout", "server.key", "-out", "server.csr"]
    sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
    sign += ["-days", "2", "-extfile", "extensions", "-out", "server.pem"]
    for arguments in ([*_NEW_KEY, *authority], [*_NEW_KEY, *request], sign):
        _openssl(folder, arguments)
    return folder / "ca.pem"


def _openssl(folder: Path, arguments: List[str]) -> None:
    try:
        done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise RuntimeError("the benchmarks over TLS need the program openssl") from None
    if done.returncode != 0:
        raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr[-1000:]}")
