"""Adam with the interface of the fused optimizers that Megatron-Core expects, in plain PyTorch."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

__all__ = ["CpuFusedAdam"]


class CpuFusedAdam(torch.optim.Optimizer):
    """AdamW that counts steps per parameter group, as the fused optimizers of Apex and Transformer Engine do.

    The update is that of Loshchilov and Hutter (decoupled weight decay) with bias correction:
    `p -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)` after `p *= 1 - lr * weight_decay`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        bias_correction: bool = True,
        adam_w_mode: bool = True,
        capturable: bool = False,
    ) -> None:
        """Make the optimizer; the arguments are those of the fused optimizers.

        Raises:
            ValueError: The arguments ask for coupled weight decay, no bias correction or steps in CUDA graphs.
        """
        if capturable or not (adam_w_mode and bias_correction):
            raise ValueError("only AdamW with bias correction and without CUDA graphs is implemented")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._update(group, parameters)

    def _update(self, group: dict[str, Any], parameters: list[torch.Tensor]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["exp_avg"] = torch.zeros_like(parameter)
                self.state[parameter]["exp_avg_sq"] = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        first = [self.state[parameter]["exp_avg"] for parameter in parameters]
        second = [self.state[parameter]["exp_avg_sq"] for parameter in parameters]
        beta1, beta2 = group["betas"]
        correction1, correction2 = 1 - beta1 ** group["step"], 1 - beta2 ** group["step"]
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        denominator = torch._foreach_sqrt(second)
        torch._foreach_div_(denominator, correction2**0.5)
        torch._foreach_add_(denominator, group["eps"])
        torch._foreach_addcdiv_(parameters, first, denominator, -group["lr"] / correction1)
