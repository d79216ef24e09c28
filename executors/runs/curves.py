"""The curves of a run by the names of its metrics."""

from neva_recipes.config import near_words
from neva_recipes.run_directory.metrics import Curve

__all__ = ["Curves"]


class Curves(dict[str, Curve]):
    """Curves by name; for a name that does not exist, the `KeyError` tells those that it may have meant."""

    def __missing__(self, name: str) -> Curve:
        if not self:
            raise KeyError(f"no metric {name!r}: none has been logged yet")
        near = [known for known in self if name in known] or near_words(name, self)
        hint = f" (did you mean {', '.join(near[:3])}?)" if near else f": expected one of {', '.join(self)}"
        raise KeyError(f"no metric {name!r}{hint}")
