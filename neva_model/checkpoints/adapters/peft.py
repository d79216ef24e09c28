"""Adapters in the format of PEFT: adapter_config.json and adapter_model.safetensors."""

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from neva_model.checkpoints.adapters.source import AdapterValues, CheckpointAdapters
from neva_recipes.config import CheckpointError, LoraConfig, ModelConfig, PlainTable, Recipe
from neva_recipes.families import AdapterSite, adapters_of, language_family, layers_run, vision_family
from neva_recipes.storage.peft import PEFT_CONFIG, PEFT_WEIGHTS, PeftSettings

__all__ = ["PeftAdapters", "write_adapters"]

_BASE = "base_model.model."
"""What PEFT's names begin with."""

_TOWER_LAYER = re.compile(r"vision.*\.layers?\.(\d+)\.")

_A, _B, _LENGTHS = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"


def module_name(model: ModelConfig, part: str, layer: int, site: AdapterSite) -> str:
    """Return the name of a linear layer in the model that an export is for transformers."""
    family = language_family(model.language).export
    if part == "language":
        # The LLaVA of transformers holds any language model without its output layer.
        outer = family.prefix if model.vision is None else "model.language_model."
        return f"{outer}{family.layers}{layer}.{site.module}"
    assert model.vision is not None
    tower = vision_family(model.vision)
    return f"model.vision_tower.{tower.layers}.{layer}.{tower.module_name(f'{site.module}.')[:-1]}"


class PeftAdapters:
    """The adapters of a directory of PEFT.

    Their names may begin otherwise, as those of older releases of transformers do.
    """

    def __init__(self, directory: Path, model: ModelConfig) -> None:
        """Find the adapters; nothing is read yet.

        Args:
            directory: The directory.
            model: The model that they are for.

        Raises:
            CheckpointError: It cannot be read.
        """
        self._file, self._model = directory / PEFT_WEIGHTS, model
        self._settings = PeftSettings(directory / PEFT_CONFIG)
        try:
            with safe_open(self._file, "pt") as file:
                self._names = set(file.keys())
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self._file}: cannot be read: {error}") from None
        ends = (_A, _B, _LENGTHS, f"{_LENGTHS}.weight")
        if other := sorted(name for name in self._names if not name.endswith(ends)):
            raise CheckpointError(
                f"{self._file}: holds {other[0]}, which is no matrix beside a linear layer and would be left out: "
                "start from a model that PEFT has merged it into (merge_and_unload)"
            )

    def read(self, part: str, layer: int, site: AdapterSite) -> AdapterValues:
        """Return an adapter, as `AdapterSource.read` does."""
        name = self._found(part, layer, site)
        with safe_open(self._file, "pt") as file:
            spellings = (f"{name}{_LENGTHS}", f"{name}{_LENGTHS}.weight")
            lengths = next((key for key in spellings if key in self._names), None)
            return AdapterValues(
                file.get_tensor(f"{name}{_A}"),
                file.get_tensor(f"{name}{_B}"),
                None if lengths is None else file.get_tensor(lengths).flatten(),
                self._settings.scale(name.removeprefix(_BASE).removesuffix(".")),
            )

    def _found(self, part: str, layer: int, site: AdapterSite) -> str:
        wanted = module_name(self._model, part, layer, site)
        if f"{_BASE}{wanted}.{_A}" in self._names:
            return f"{_BASE}{wanted}."
        # A name may have other parts of the model before the layer.
        end = f".{layer}.{site.module}.{_A}"
        of_tower = [name for name in self._names if name.endswith(end) and ("vision" in name) == (part == "vision")]
        if len(of_tower) != 1:
            raise CheckpointError(f"{self._file}: has no adapter {_BASE}{wanted}, which the recipe has")
        return of_tower[0].removesuffix(_A)

    def number(self, parts: Collection[str]) -> int:
        """Return how many adapters there are of some parts; what is not of the tower counts as the language model's."""
        adapters = [name for name in self._names if name.endswith(_A) and not self._is_idle(name)]
        return sum(("vision" if "vision" in name else "language") in parts for name in adapters)

    def _is_idle(self, name: str) -> bool:
        """Return whether an adapter is in a layer of the vision tower that does not run."""
        layer, vision = _TOWER_LAYER.search(name), self._model.vision
        return layer is not None and vision is not None and int(layer[1]) >= layers_run(vision)


def write_adapters(checkpoint: Path, recipe: Recipe, directory: Path) -> None:
    """Write the adapters of a checkpoint as PEFT saves them.

    Args:
        checkpoint: The checkpoint.
        recipe: The recipe that it was saved with.
        directory: An empty directory.

    Raises:
        OSError: It cannot be written.
        CheckpointError: It has no adapters, or one cannot be read.
    """
    source, model = CheckpointAdapters(checkpoint, recipe), recipe.model
    _require_one_kind(model)
    # PEFT wants one model. That of a vision-language model is not on the disk, but made of its parts.
    base = model.language.source if model.vision is None else None
    tensors, modules = dict[str, torch.Tensor](), dict[str, list[str]]()
    for part in ("language", "vision"):
        for layer, site in adapters_of(model, part):
            name, values = module_name(model, part, layer, site), source.read(part, layer, site)
            modules.setdefault(part, []).append(name)
            tensors |= dict(_named(f"{_BASE}{name}.", values))
    save_file(tensors, directory / PEFT_WEIGHTS, metadata={"format": "pt"})
    text = json.dumps(_configuration(model, modules, base), indent=2, sort_keys=True)
    (directory / PEFT_CONFIG).write_text(f"{text}\n", encoding="utf-8")


def _named(name: str, values: AdapterValues) -> Iterator[tuple[str, torch.Tensor]]:
    yield f"{name}{_A}", values.a.contiguous()
    yield f"{name}{_B}", values.b.contiguous()
    if values.lengths is not None:
        yield f"{name}{_LENGTHS}", values.lengths


def _require_one_kind(model: ModelConfig) -> None:
    loras = {"language": model.language.lora, "vision": model.vision.lora if model.vision is not None else None}
    kinds = {
        f"model.{part}.lora.kind={lora.kind}": lora.kind == "dora" for part, lora in loras.items() if lora is not None
    }
    if len(set(kinds.values())) > 1:
        raise CheckpointError(
            f"{' and '.join(kinds)}: in PEFT's format all adapters are DoRA or none is: nemo-run merge RUN DIR writes "
            "the model with both"
        )


def _configuration(model: ModelConfig, modules: dict[str, list[str]], base: str | None) -> PlainTable:
    """Return PEFT's configuration; its one rank and alpha are those of the first part, the others are exceptions."""
    configs = {"language": model.language.lora, "vision": model.vision.lora if model.vision is not None else None}
    first = next(lora for lora in configs.values() if lora is not None)
    others = [
        (name, lora)
        for part, lora in configs.items()
        if lora is not None and lora is not first
        for name in modules.get(part, ())
    ]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "bias": "none",
        "r": first.rank,
        "lora_alpha": first.used_alpha,
        "lora_dropout": first.dropout,
        "use_rslora": first.kind == "rslora",
        "use_dora": first.kind == "dora",
        "fan_in_fan_out": any(weight.transposed for weight in language_family(model.language).export.layer),
        "target_modules": [name for names in modules.values() for name in names],
        "rank_pattern": {name: lora.rank for name, lora in others},
        "alpha_pattern": {name: _alpha(lora, first) for name, lora in others},
    }


def _alpha(lora: LoraConfig, first: LoraConfig) -> float:
    """Return the alpha that gives adapters their scale, where all are divided as the first ones are."""
    if lora.kind == first.kind:
        return lora.used_alpha
    return lora.scale * (lora.rank**0.5 if first.kind == "rslora" else lora.rank)
