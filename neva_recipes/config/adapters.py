"""Adapters: small matrices that are trained beside the fixed weights of linear layers."""

from collections.abc import Iterator
from typing import Annotated, Literal

from neva_recipes.config.values.node import ConfigNode, Matches, Positive, PositiveFloat, Range, config_dataclass
from neva_recipes.config.values.paths import OptionalPathField

__all__ = ["LoraConfig"]

_Layers = Annotated[str, Matches(r"\d+(-\d+)?(,\d+(-\d+)?)*", "numbers of layers from 0: 3, 16-31 or 0-3,28-31")]


@config_dataclass
class LoraConfig(ConfigNode):
    """Low-rank adapters of a part of the model, whose own weights are then fixed (Hu et al., arXiv 2106.09685)."""

    is_made_by_its_fields = True

    kind: Literal["lora", "rslora", "dora"] = "lora"
    """lora; rslora, which divides alpha by the root of the rank (arXiv 2312.03732); dora, which also trains the length
    of each row (arXiv 2402.09353)."""
    rank: Positive = 128
    """Rows of the first matrix and columns of the second (PEFT: r)."""
    alpha: PositiveFloat | None = None
    """What the adapters add is multiplied by alpha / rank, with rslora by alpha / sqrt(rank) (PEFT: lora_alpha); None
    means twice the rank, as in LLaVA-1.5."""
    dropout: Annotated[float, Range(minimum=0, maximum=1)] = 0.05
    """Dropout probability of the adapters' input (PEFT: lora_dropout)."""
    target_modules: list[str] | None = None
    """Linear layers that get adapters, by their names in Hugging Face's model: q_proj, mlp.fc1; None means all of each
    layer."""
    layers: _Layers | None = None
    """Layers that get adapters, from 0 and with the last one of a range; None means all."""
    from_pretrained: OptionalPathField = None  # type: ignore[assignment]
    """Adapters to start from: a run with adapters, or a directory of PEFT; None means adapters that change nothing
    yet."""

    @property
    def used_alpha(self) -> float:
        """Alpha, given or not."""
        return self.alpha or 2.0 * self.rank

    @property
    def scale(self) -> float:
        """What the adapters add is multiplied by this."""
        return self.used_alpha / (self.rank**0.5 if self.kind == "rslora" else self.rank)

    def covers(self, layer: int) -> bool:
        """Return whether a layer gets adapters."""
        if self.layers is None:
            return True
        return any(first <= layer <= last for first, last in self._ranges)

    @property
    def turned_range(self) -> str | None:
        """The first range of `layers` that ends before it begins."""
        return next((f"{first}-{last}" for first, last in self._ranges if last < first), None)

    @property
    def _ranges(self) -> Iterator[tuple[int, int]]:
        for text in self.layers.split(",") if self.layers is not None else ():
            first, _, last = text.partition("-")
            yield int(first), int(last or first)
