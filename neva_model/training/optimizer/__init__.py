"""Megatron's optimizer as Lightning sees it, and the learning rates of its groups of weights."""

from neva_model.training.optimizer.megatron import OptimizerFacade, build_optimizer, wrap_data_parallel

__all__ = ["OptimizerFacade", "build_optimizer", "wrap_data_parallel"]
