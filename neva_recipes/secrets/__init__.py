"""Recognizes secrets, which must not be written or shown, by the names of variables and by the form of texts.

Standard library only, because every process of a run uses it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from neva_recipes.secrets._secret_names import assigned_secrets, is_secret_name

__all__ = [
    "MASK",
    "assigned_secret",
    "is_secret",
    "is_secret_name",
    "mask",
    "secret_in",
    "secret_names",
    "secret_values",
]

MASK = "***"
"""Text shown in place of a secret."""

_SHORTEST_VALUE = 8
"""Shorter texts are neither recognized by their form nor searched for as values: that would find ordinary words."""


@dataclass(frozen=True)
class _Shape:
    """The form of a kind of secret: the first group of `pattern`, or the whole match, is the secret.

    `hint` occurs in every such text; searching for it first saves time on long logs.
    """

    kind: str
    hint: str
    pattern: re.Pattern[str]


def _shape(kind: str, hint: str, pattern: str) -> _Shape:
    return _Shape(kind, hint, re.compile(rf"(?<![A-Za-z0-9]){pattern}", re.DOTALL))


_SHAPES = (
    _shape("a password in a URL", "://", r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^/\s:@'\"]*:([^/\s@'\"]+)@"),
    _shape(
        "a secret in a URL",
        "=",
        r"(?<=[?&;])(?i:[\w.-]*(?:token|key|secret|password|passwd|signature|credential)|sig|auth|pwd)=([^&;#\s'\"$][^&;#\s'\"]*)",
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
    _shape("an npm token", "npm_", r"npm_[A-Za-z0-9]{36}"),
    _shape("a PyPI token", "pypi-", r"pypi-AgE[\w-]{16,}"),
    _shape("a Docker token", "dckr_", r"dckr_(?:pat|oat)_[\w-]{20,}"),
    _shape("a Slack token", "xox", r"xox[abeoprs]-[\w-]{10,}"),
    _shape("a Slack address", "hooks.slack.com", r"hooks\.slack\.com/services/([\w/-]+)"),
    _shape("a JSON web token", "eyJ", r"eyJ[\w-]{10,2000}\.eyJ[\w-]{10,}\.[\w-]+"),
    _shape("an authorization", "Bearer ", r"Bearer ([\w.~+/=-]{16,})"),
    _shape("a private key", "-----BEGIN ", r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:.*?-----END [A-Z ]*-----|.*)"),
)


def secret_in(text: str, environ: Mapping[str, str] | None = None) -> str | None:
    """Return the kind of secret that a text holds, such as "a Hugging Face token"; `None` if it holds none.

    Args:
        text: The text that is about to be written or shown.
        environ: Environment variables whose secret values to search for too.
    """
    if kind := _kind_of(text):
        return kind
    if name := assigned_secret(text):
        return name if " " in name else f"a value of {name}"
    if len(text) < _SHORTEST_VALUE:
        return None
    for name, value in (environ or {}).items():
        if is_secret(name, value) and any(line in text for line in secret_values({name: value})):
            return f"the value of the environment variable {name}"
    return None


def _kind_of(text: str) -> str | None:
    if len(text) < _SHORTEST_VALUE:
        return None
    return next((shape.kind for shape in _SHAPES if shape.hint in text and shape.pattern.search(text)), None)


def assigned_secret(text: str) -> str | None:
    """Return the name of a secret to which a text assigns a value, as in `export DB_PASSWORD=...`; else `None`."""
    return next((assigned.name for assigned in assigned_secrets(text)), None)


@lru_cache(maxsize=1024)
def is_secret(name: str, value: str) -> bool:
    """Return whether the value of an environment variable must not be written or shown."""
    return is_secret_name(name) or _kind_of(value) is not None


def secret_names(environ: Mapping[str, str]) -> list[str]:
    """Return the names of the variables whose values must not be written or shown, sorted."""
    return sorted(name for name, value in environ.items() if is_secret(name, value))


def secret_values(environ: Mapping[str, str]) -> list[str]:
    """Return the values of secret variables for `mask`: split into lines, as logs are, and the longest first."""
    lines = {line for name in secret_names(environ) for line in environ[name].splitlines()}
    return sorted((line for line in lines if len(line) >= _SHORTEST_VALUE), key=len, reverse=True)


def mask(text: str, values: Iterable[str] = ()) -> str:
    """Return a text with `***` in place of the given values and of everything in the form of a secret.

    Args:
        text: The text that is about to be written or shown.
        values: Secrets without a recognizable form; `secret_values` finds them in the environment.
    """
    for value in values:
        text = text.replace(value, MASK)
    for shape in _SHAPES:
        if shape.hint in text:
            text = shape.pattern.sub(_masked, text)
    while found := sorted(assigned_secrets(text), key=lambda assigned: assigned.start):
        parts, at = [], 0
        for assigned in found:
            if assigned.start >= at:  # otherwise it overlaps the previous one, and the next round handles the rest
                parts += [text[at : assigned.start], MASK]
                at = assigned.end
        text = "".join([*parts, text[at:]])
    return text


def _masked(match: re.Match[str]) -> str:
    if match.lastindex is None:
        return MASK
    start, end = match.start(1) - match.start(), match.end(1) - match.start()
    return match[0][:start] + MASK + match[0][end:]
