"""Mounts of a container: folders and files of this machine, and volumes of the engine."""

import re
from dataclasses import dataclass
from pathlib import Path

from neva_recipes.config import PlainTable, RunError

__all__ = ["Bind", "Mount", "parse_mount"]

_OPTIONS = re.compile(r"(?P<rest>.*):(?P<options>(?:ro|rw|z|Z)(?:,(?:ro|rw|z|Z))*)", re.DOTALL)
_FORM = "expected SOURCE:TARGET[:ro,z,Z], and the target an absolute path"
_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]+")
"""Valid names of volumes (docker volume create), which have no slash, unlike paths."""


@dataclass(frozen=True)
class Bind:
    """A file or folder of this machine, or a volume of the engine, in a container.

    Attributes:
        source: Path, or name of the volume.
        target: Path in the container.
        read_only: Whether the container cannot write to it.
        volume: Whether it is a volume.
        relabel: SELinux label: "z" for shared by containers, "Z" for private to this one, empty for none.
    """

    source: str
    target: str
    read_only: bool
    volume: bool = False
    relabel: str = ""

    def api(self) -> PlainTable:
        """Return the entry for `Mounts` of the engine's API, which have no SELinux labels."""
        kind = "volume" if self.volume else "bind"
        return {"Type": kind, "Source": self.source, "Target": self.target, "ReadOnly": self.read_only}

    def words(self) -> str:
        """Return the text for `Binds` of the engine's API and `docker run --volume`, with the SELinux label."""
        options = [*(["ro"] if self.read_only else []), *([self.relabel] if self.relabel else [])]
        return ":".join([self.source, self.target, *([",".join(options)] if options else [])])

    def argument(self) -> str:
        """Return the argument of `docker run`; the value of --mount is a line of CSV."""
        if self.relabel:
            return f"--volume={self.words()}"
        values = [f"type={'volume' if self.volume else 'bind'}", f"source={self.source}", f"target={self.target}"]
        quoted = ['"' + value.replace('"', '""') + '"' if re.search('[",\r\n]', value) else value for value in values]
        return f"--mount={','.join([*quoted, *(['readonly'] if self.read_only else [])])}"


@dataclass(frozen=True)
class Mount:
    """A parsed SOURCE:TARGET[:OPTIONS]; the source need not exist."""

    text: str
    source: str
    target: str
    read_only: bool
    relabel: str

    @property
    def is_volume(self) -> bool:
        """Whether the source is the name of a volume, as for `docker run`: without a slash, a ~ and a leading dot."""
        return _VOLUME.fullmatch(self.source) is not None

    def bind(self, folder: Path) -> Bind:
        """Return the bind of the mount.

        Args:
            folder: Absolute path of the folder that a relative source starts from, also when the run is resumed.

        Raises:
            RunError: The source names the home of an unknown user, or a path with a label has a colon.
        """
        if self.is_volume:
            return Bind(self.source, self.target, self.read_only, volume=True, relabel=self.relabel)
        try:
            bind = Bind(str(folder / Path(self.source).expanduser()), self.target, self.read_only, relabel=self.relabel)
        except RuntimeError:
            raise RunError(
                f"executor.mounts: {self.text!r}: there is no such user as the one of {self.source!r}"
            ) from None
        if self.relabel and ":" in bind.source + bind.target:
            raise RunError(
                f"executor.mounts: {self.text!r}: a path with a colon can have no :{self.relabel}: rename it"
            )
        return bind


def parse_mount(text: str) -> Mount:
    """Parse SOURCE:TARGET[:OPTIONS]; the options are ro, rw, z and Z, joined by commas.

    Raises:
        RunError: The text does not have this form.
    """
    match = _OPTIONS.fullmatch(text)
    rest, options = (match["rest"], match["options"].split(",")) if match else (text, [])
    source, separator, target = rest.rpartition(":/")
    if not separator or not source.strip() or not target:
        raise RunError(f"executor.mounts: {text!r}: {_FORM}")
    # Text after a colon is a wrong option, not part of the target: a target with a colon needs :rw or :ro after it.
    if not options and ":" in target:
        raise RunError(f"executor.mounts: {text!r}: {target.rpartition(':')[2]!r} is not a way to mount: {_FORM}")
    if _OPTIONS.fullmatch(rest) or len({*options} & {"ro", "rw"}) > 1 or len({*options} & {"z", "Z"}) > 1:
        raise RunError(f"executor.mounts: {text!r}: says twice how to mount: {_FORM}")
    relabel = next((option for option in options if option in "zZ"), "")
    return Mount(text, source, f"/{target}", "ro" in options, relabel)
