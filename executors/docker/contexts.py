"""Docker contexts: named engines with addresses and certificates, read from the files that `docker context` writes.

Does not use Docker's Python package, whose import would take too long for a dry run.
"""

import hashlib
import json
import os
from pathlib import Path

from neva_recipes.config import PlainTable, RunError

__all__ = ["address_of_context", "certificates_of"]

_DEFAULT = "default"


def _folder() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def address_of_context() -> str | None:
    """Return the address of the context set by DOCKER_CONTEXT or `docker context use`; `None` for the default one.

    Raises:
        RunError: There is no such context, or its file cannot be read.
    """
    name = os.environ.get("DOCKER_CONTEXT")
    said = f"DOCKER_CONTEXT={name}" if name else f"{_folder() / 'config.json'}: currentContext"
    name = name or _read(_folder() / "config.json").get("currentContext")
    if not name or name == _DEFAULT:
        return None
    digest = hashlib.sha256(str(name).encode()).hexdigest()
    host = _host(_read(_folder() / "contexts" / "meta" / digest / "meta.json"))
    if host is None:
        raise RunError(f"{said}: there is no Docker context {name!r} with an engine: `docker context ls` shows them")
    return host


def certificates_of(address: str) -> dict[str, str]:
    """Return the variables that tell Docker's client where the certificates of the context with this address are.

    Empty if DOCKER_CERT_PATH is set, and for engines without certificates.
    """
    if os.environ.get("DOCKER_CERT_PATH") or not address.startswith(("tcp://", "https://")):
        return {}
    for meta in (_folder() / "contexts" / "meta").glob("*/meta.json"):
        certificates = _folder() / "contexts" / "tls" / meta.parent.name / "docker"
        if _host(_read(meta)) == address and certificates.is_dir():
            return {"DOCKER_CERT_PATH": str(certificates), "DOCKER_TLS_VERIFY": "1"}
    return {}


def _host(meta: PlainTable) -> str | None:
    host = meta.get("Endpoints", {}).get("docker", {}).get("Host")
    return str(host) if host else None


def _read(path: Path) -> PlainTable:
    """Return the content of a JSON file of Docker; empty if it does not exist."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read as a file of Docker's: {error}") from None
    return found if isinstance(found, dict) else {}
