"""What must not be written or shown: by the name of an environment variable, and by how a text looks.

Standard library only, for every process of a run uses it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["MASK", "is_secret", "is_secret_name", "mask", "secret_in", "secret_names", "secret_values"]

MASK = "***"
"""What is shown in place of a secret."""

_SECRET_WORD = re.compile(
    r".*(KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL)S?|.*(PASSWD|PASSPHRASE|AUTH|AUTHORIZATION|CREDS|SSHPASS)"
    r"|PASS|PWD|PAT|JWT|BEARER|COOKIE"
)
"""A word of a variable's name, in capitals, that says its value is secret; TOKENIZERS is none."""

_PLACE_WORDS = {"FILE", "PATH", "DIR", "FOLDER", "SOCK"}
"""Last words of names whose values only say where a secret lies."""

_WORKING_DIRECTORIES = {"PWD", "OLDPWD"}

_SHORTEST_VALUE = 8
"""A shorter text is not taken for a secret by its look, nor looked for in others: that would find ordinary words."""


@dataclass(frozen=True)
class _Shape:
    """How a kind of secret looks: its first group, or all of it, is what must not be seen.

    `hint` is a part of every such text; looking for it first makes long logs cheap.
    """

    kind: str
    hint: str
    pattern: re.Pattern[str]


def _shape(kind: str, hint: str, pattern: str) -> _Shape:
    return _Shape(kind, hint, re.compile(rf"(?<![A-Za-z0-9]){pattern}", re.DOTALL))


_SHAPES = (
    _shape("a password in a URL", "://", r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s:@'\"]*:([^/\s@'\"]+)@"),
    _shape(
        "a secret in a URL",
        "=",
        r"(?<=[?&;])(?i:[\w.-]*(?:token|key|secret|password|passwd|signature|credential)|sig|auth|pwd)=([^&;#\s'\"]+)",
    ),
    _shape("a Hugging Face token", "hf_", r"hf_[A-Za-z0-9]{30,}"),
    _shape("a Hugging Face token", "api_org_", r"api_org_[A-Za-z0-9]{30,}"),
    _shape("a Weights & Biases key", "wandb_v1_", r"wandb_v1_\w{20,}"),
    _shape("an NVIDIA key", "nvapi-", r"nvapi-[\w-]{40,}"),
    _shape("an API key", "sk-", r"sk-(?:proj|svcacct|admin|ant|or)-[\w-]{20,}"),
    _shape("an API key", "sk-", r"sk-[A-Za-z0-9]{32,}"),
    _shape("a GitHub token", "gh", r"gh[pousr]_[A-Za-z0-9]{30,}"),
    _shape("a GitHub token", "github_pat_", r"github_pat_\w{22,}"),
    _shape("a GitLab token", "glpat-", r"glpat-[\w-]{20,}"),
    _shape("an AWS key", "AKIA", r"AKIA[A-Z0-9]{16}(?![A-Za-z0-9])"),
    _shape("an AWS key", "ASIA", r"ASIA[A-Z0-9]{16}(?![A-Za-z0-9])"),
    _shape("a Google key", "AIza", r"AIza[\w-]{35}"),
    _shape("a Slack token", "xox", r"xox[abeoprs]-[\w-]{10,}"),
    _shape("a Slack address", "hooks.slack.com", r"hooks\.slack\.com/services/([\w/-]+)"),
    _shape("a JSON web token", "eyJ", r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]+"),
    _shape("an authorization", "Bearer ", r"Bearer ([\w.~+/=-]{16,})"),
    _shape("a private key", "-----BEGIN ", r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:.*?-----END [A-Z ]*-----|.*)"),
)


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Return whether an environment variable of this name holds a secret, such as `HF_TOKEN` or `PGPASSWORD`."""
    words = [word.rstrip("0123456789") for word in name.upper().split("_")]
    if name in _WORKING_DIRECTORIES or words[-1] in _PLACE_WORDS:
        return False
    return any(_SECRET_WORD.fullmatch(word) for word in words)


def secret_in(text: str, environ: Mapping[str, str] | None = None) -> str | None:
    """Return what kind of secret a text holds, such as "a Hugging Face token"; none if it looks like none.

    Args:
        text: What is about to be written or shown.
        environ: Environment variables whose secret values are looked for too.
    """
    if len(text) < _SHORTEST_VALUE:
        return None
    for shape in _SHAPES:
        if shape.hint in text and shape.pattern.search(text):
            return shape.kind
    for name, value in (environ or {}).items():
        if is_secret(name, value) and any(line in text for line in secret_values({name: value})):
            return f"the value of the environment variable {name}"
    return None


@lru_cache(maxsize=1024)
def is_secret(name: str, value: str) -> bool:
    """Return whether the value of an environment variable must not be written or shown."""
    return is_secret_name(name) or secret_in(value) is not None


def secret_names(environ: Mapping[str, str]) -> list[str]:
    """Return the names of the variables whose values must not be written or shown, sorted."""
    return sorted(name for name, value in environ.items() if is_secret(name, value))


def secret_values(environ: Mapping[str, str]) -> list[str]:
    """Return the values of secret variables that `mask` can look for: line by line as logs come, the longest first."""
    lines = {line for name in secret_names(environ) for line in environ[name].splitlines()}
    return sorted((line for line in lines if len(line) >= _SHORTEST_VALUE), key=len, reverse=True)


def mask(text: str, values: Iterable[str] = ()) -> str:
    """Return a text with `***` in place of what looks like a secret and of the given values.

    Args:
        text: What is about to be written or shown.
        values: What is secret although it does not look so; `secret_values` finds it in the environment.
    """
    for value in values:
        text = text.replace(value, MASK)
    for shape in _SHAPES:
        if shape.hint in text:
            text = shape.pattern.sub(_masked, text)
    return text


def _masked(match: re.Match[str]) -> str:
    if match.lastindex is None:
        return MASK
    start, end = match.start(1) - match.start(), match.end(1) - match.start()
    return match[0][:start] + MASK + match[0][end:]
