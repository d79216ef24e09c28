"""Recognizes names of secrets, and texts that assign values to such names. Standard library only."""

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import NamedTuple

__all__ = ["Assigned", "assigned_secrets", "is_secret_name"]

_SECRET_WORD = re.compile(
    r"(?!PKEY).*(KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL)S?|.*(PASSWD|PASSPHRASE|AUTH|AUTHORIZATION|CREDS|SSHPASS)"
    r"|(ADMIN|DB|LDAP|MY|MYSQL|PG|ROOT|SMTP|SUDO|USER)?(PASS|PW|PWD)|PAT|JWT|BEARER|COOKIE"
)
"""A word in the name of a variable, in capitals, that marks its value as secret; TOKENIZERS does not.

The PKEY of InfiniBand (NCCL_IB_PKEY) is a partition number and not secret.
"""

_PLACE_WORDS = {"FILE", "PATH", "DIR", "FOLDER", "SOCK"}
"""Last words of names whose values are only the location of a secret."""

_WORKING_DIRECTORIES = {"PWD", "OLDPWD"}

_SURE_WORDS = re.compile(
    r"(.*_)?(password|passwd|passphrase|secret|credentials?|(access|account|api|auth|private|secret)_?keys?"
    r"|(access|api|auth|bearer|github|gitlab|hf|hub|id|ngc|private|refresh|session|wandb)_?token)"
)
"""Lowercase names of options and keys that mark a value as secret; pad_token, max_tokens and --key do not."""

_UNSURE_WORDS = re.compile(r"(.*_)?(token|pwd|auth|authorization|bearer|cookie)")
"""Names that mark a value as secret only if it has the form of a token: eight characters, letters and digits."""

_TOKEN = re.compile(r"(?=.*[A-Za-z])(?=.*\d)[\w.~+/=-]{8,}")

_NOTHING = {"", "0", "1", "false", "no", "none", "null", "off", "on", "true", "unset", "value", "yes"}
"""Lowercase values that are no secrets, as in `USE_AUTH=1`, or in `KEY=VALUE` as an explanation."""

_PART = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|\$\{[^}]{0,100}\}|\$\([^)]{0,100}\)|`[^`]{0,100}`|\\.|[^\s;&|)\]}"'\\])"""
_QUOTED = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*')(?!\w)"""
_WHOLE = rf"(?P<value>{_QUOTED}|{_PART}+)"
"""A shell word, or a text in quotes."""

_VALUE = rf"(?=(?P<value>{_QUOTED}|{_PART}{{1,100}}))"
"""The beginning of such a value, which is matched before the name is known to be that of a secret."""

_NAME = r"(?P<name>[A-Za-z_][\w.-]*)"
_FORMS = (
    # NAME=value, NAME+=value, NAME[0]=value, --name=value, -eNAME=value, --export=ALL,NAME=value; NAME = value (INI).
    (
        "=",
        rf"(?<![\w$.-])-{{0,2}}(?:(?<=-)e(?=[A-Z]))?{_NAME}(?:(?:\[\w{{0,9}}\])?\+?=(?!=)|\s+=\s+(?![\w.]+[(\[])){_VALUE}",
        None,
    ),
    # os.environ["NAME"] = value
    ("=", rf"\[[\"']{_NAME}[\"']\]\s*=(?!=)\s*{_VALUE}", None),
    # ${NAME:=value}, where only the default is a value
    ("${", rf"\$\{{{_NAME}:?[-=](?=(?P<value>[^{{}}]{{1,100}}))", None),
    ("setenv", rf"\bsetenv\s+{_NAME}\s+{_VALUE}", None),
    # set -gx NAME value, aws configure set name value, conda config --set name value
    ("set ", rf"\b(?:set\s+-\w*x\w*|config(?:ure)?\s+(?:--)?set)\s+{_NAME}\s+{_VALUE}", None),
    # printf -v NAME value, read NAME <<< value
    ("printf -v", rf"\bprintf\s+-v\s+{_NAME}\s+{_VALUE}", None),
    ("<<<", rf"{_NAME}\s*<<<\s*{_VALUE}", None),
    # "name": "value", {name: value}, a line of YAML
    (":", rf"[\"']{_NAME}[\"']\s*:\s*{_VALUE}", None),
    (": ", rf"[{{,]\s*{_NAME}:\s+{_VALUE}", None),
    (": ", rf"(?:^|[\n\"'\[]){_NAME}:\s+(?=[^\s\"'{{}}]{{1,200}}(?:[\"'\n]|$)|[\"']){_VALUE}", None),
    # HTTP headers
    (":", rf"(?<![\w-])(?P<name>(?i:X-[\w-]{{0,50}}(?:key|token)|api-key|private-token)):\s*{_VALUE}", None),
    (
        ":",
        rf"(?<![\w-])(?i:(?:proxy-)?authorization):\s*(?:(?i:basic|bearer|digest|negotiate|token)\s+|(?=[\w.~+/=-]*\d)){_VALUE}",
        "an authorization",
    ),
    # A line of .netrc, and a Python call
    ("machine", rf"\bmachine\s+\S{{1,200}}\s+login\s+\S{{1,200}}\s+password\s+{_VALUE}", "a password"),
    ("login(", rf"\blogin\([^)\n]{{0,100}}?\b(?:key|token|password)\s*=\s*{_VALUE}", "a password"),
    ("--", rf"(?<![\w-])--{_NAME}\s+(?![-&|;<>]){_VALUE}", None),
    ("login", rf"\blogin\b[^|;]{{0,200}}?\s-p\s*{_VALUE}", "a password"),
    ("login", rf"\bwandb\s+login\s+(?:--\S+\s+)*{_VALUE}", "a Weights & Biases key"),
    ("sshpass", rf"\bsshpass\s+-p\s*{_VALUE}", "a password"),
    ("curl", rf"\bcurl\b[^|;]{{0,200}}?\s(?:-u|--user)[\s=]*[\"']?[^\s:\"'$]{{1,200}}:{_VALUE}", "a password"),
)
"""Forms of assignments: a substring of every such text, a pattern, and the name to use if the text has none.

No pattern can match again from within a word, and repetitions are bounded, so that the time is linear in the length
of a line.
"""


class Assigned(NamedTuple):
    """A secret in a text: the name to which it is assigned (or "a password"), and start and end of its value."""

    name: str
    start: int
    end: int


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Return whether an environment variable of this name holds a secret, such as `HF_TOKEN` or `PGPASSWORD`."""
    words = [word.rstrip("0123456789") for word in name.upper().split("_")]
    if name in _WORKING_DIRECTORIES or words[-1] in _PLACE_WORDS:
        return False
    return any(_SECRET_WORD.fullmatch(word) for word in words)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Return a compiled pattern; compiled on first use, because most texts need none."""
    return re.compile(pattern)


def assigned_secrets(text: str) -> Iterator[Assigned]:
    """Yield the values that a text in any language assigns to names of secrets, except references to variables.

    For example `export DB_PASSWORD=x`, `setenv A_KEY x`, `--api-key x`, `{"token": "x"}`.
    """
    for sign, pattern, told in _FORMS:
        if sign not in text:
            continue
        at = 0
        while (match := _compiled(pattern).search(text, at)) is not None:
            # A value may itself hold an assignment: --env=A_KEY=x.
            at, name = match.start("value"), told or match["name"]
            if told is None and not _tells_of_a_secret(name, match["value"].strip("\"'")):
                continue
            whole = _compiled(_WHOLE).match(text, at)
            if whole is not None and _is_literal(whole["value"]):
                yield Assigned(name, *_inside_of_quotes(whole))
                at = whole.end()


def _inside_of_quotes(match: re.Match[str]) -> tuple[int, int]:
    start, end = match.span("value")
    return (start + 1, end - 1) if _compiled(_QUOTED).fullmatch(match["value"]) else (start, end)


def _is_literal(value: str) -> bool:
    """Return whether a value has a literal part besides references to variables and command substitutions."""
    if value.startswith("env:"):  # a reference to a variable in NeMo-Run's options
        return False
    rest = re.sub(r"\$\{\w+(?::?[-=+]([^{}]*)|:?\?[^{}]*)?\}", r"\1", value)
    rest = re.sub(r"(?:\$\(|`)\s*(?:echo|printf)\s+([^|)`]*).*", r"\1", rest, flags=re.DOTALL)
    rest = re.sub(r"\$\w+|\$\(.*|`.*", "", rest, flags=re.DOTALL)
    rest = re.sub(r"(?i)\b(basic|bearer|token)\b", "", rest).strip("\"'")
    return rest.lower().rstrip(",.:") not in _NOTHING and re.search(r"[^\W_]", rest) is not None


def _tells_of_a_secret(name: str, value: str) -> bool:
    if name == name.upper():
        is_number_of = value.isdigit() and re.search(r"(KEYS|TOKENS|_LEN|_LENGTH|_SIZE|_COUNT)(_|$)", name) is not None
        return is_secret_name(name.replace("-", "_").replace(".", "_")) and not is_number_of
    small = re.sub(r"(?<=[a-z\d])(?=[A-Z])", "_", name).replace("-", "_").replace(".", "_").lower()
    if small.rpartition("_")[2].upper() in _PLACE_WORDS:
        return False
    return bool(_SURE_WORDS.fullmatch(small) or (_UNSURE_WORDS.fullmatch(small) and _TOKEN.fullmatch(value)))
