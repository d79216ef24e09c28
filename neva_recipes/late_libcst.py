"""Imports Fiddle without libcst, which takes longer to import than everything else that a short command needs.

Fiddle imports libcst for one class, which finds the source of a lambda given to `auto_config`. Here Fiddle gets a
stand-in, which takes the place of libcst until an attribute of it is first used.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

__all__ = ["import_fiddle"]

_LIBCST = "libcst"


def import_fiddle() -> None:
    """Import Fiddle; libcst is imported when a lambda is given to `auto_config`, or by whoever else imports it.

    Where Fiddle is not installed, whoever needs it says so.
    """
    if {"fiddle", _LIBCST} & sys.modules.keys() or importlib.util.find_spec("fiddle") is None:
        return
    stand_in = sys.modules[_LIBCST] = _StandIn(_LIBCST)
    try:
        importlib.import_module("fiddle")
    finally:
        if sys.modules.get(_LIBCST) is stand_in:
            del sys.modules[_LIBCST]


class _Visitor:
    """The base of Fiddle's visitors until libcst is imported."""

    METADATA_DEPENDENCIES: tuple[Any, ...] = ()


class _Metadata:
    """Stands for libcst's metadata: each of its names stands for itself until then."""

    def __getattr__(self, name: str) -> str:
        return name


class _StandIn(ModuleType):
    """Knows what the body of a visitor class uses; any other attribute is that of libcst."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.CSTVisitor = _Visitor
        self.metadata = _Metadata()

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(_LIBCST) is self:
            del sys.modules[_LIBCST]
        libcst = importlib.import_module(_LIBCST)
        if "CSTVisitor" in self.__dict__:
            del self.CSTVisitor, self.metadata
            for visitor in _Visitor.__subclasses__():
                _make_real(visitor, libcst)
        return getattr(libcst, name)


def _make_real(visitor: Any, libcst: Any) -> None:
    names = visitor.METADATA_DEPENDENCIES
    visitor.__bases__ = (libcst.CSTVisitor,)
    visitor.METADATA_DEPENDENCIES = tuple(getattr(libcst.metadata, name) for name in names)
