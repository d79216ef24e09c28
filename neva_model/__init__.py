"""Training of LLaVA/NeVA models on Megatron-Core: everything that imports torch."""

from neva_model._core_imports import prepare_imports

prepare_imports()
