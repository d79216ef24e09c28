"""Layers with the parameter names and the extra state of Transformer Engine's, in plain PyTorch.

Transformer Engine fuses each norm with the linear layer behind it, so a GPU run has other parameter names than a run on
a CPU, and each of its modules keeps an extra state. Its modules refuse to be made without a GPU.
"""

import torch
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.tensor_parallel import ColumnParallelLinear
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint

from neva_model.model.attention import SdpaCoreAttention


class ExtraState:
    """What every module of Transformer Engine adds to a state dict: an empty tensor unless FP8 was used."""

    def get_extra_state(self):
        return torch.empty(0, dtype=torch.uint8)

    def set_extra_state(self, state):
        assert state is None or isinstance(state, torch.Tensor)


class NormAndLinear(ExtraState, ColumnParallelLinear):
    def __init__(self, input_size, output_size, *, config, **kwargs):
        super().__init__(input_size, output_size, config=config, **kwargs)
        self.layer_norm_weight = torch.nn.Parameter(torch.full((input_size,), torch.nan, dtype=config.params_dtype))
        self.epsilon = config.layernorm_epsilon

    def forward(self, hidden):
        weight = self.layer_norm_weight
        return super().forward(torch.nn.functional.rms_norm(hidden, weight.shape, weight, self.epsilon))

    def sharded_state_dict(self, prefix="", sharded_offsets=(), metadata=None):
        return make_sharded_tensors_for_checkpoint(
            self.state_dict(keep_vars=True), prefix, {"weight": 0}, sharded_offsets
        )


class Norm(ExtraState, torch.nn.RMSNorm):
    def __init__(self, config, hidden_size, eps):
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)


class CoreAttention(ExtraState, SdpaCoreAttention):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_load_state_dict_post_hook(self._forgive)

    @staticmethod
    def _forgive(_, incompatible):
        incompatible.missing_keys[:] = [
            key for key in incompatible.missing_keys if not key.endswith("core_attention._extra_state")
        ]

    def sharded_state_dict(self, prefix="", sharded_offsets=(), metadata=None):
        return {}


def fused_block_spec(config, virtual_stage, _):
    assert virtual_stage is None
    layer = get_gpt_layer_local_spec(normalization="RMSNorm")
    layer.submodules.input_layernorm = IdentityOp
    layer.submodules.pre_mlp_layernorm = IdentityOp
    layer.submodules.self_attention.submodules.linear_qkv = NormAndLinear
    layer.submodules.self_attention.submodules.core_attention = CoreAttention
    layer.submodules.mlp.submodules.linear_fc1 = NormAndLinear
    layer.submodules.sharded_state_dict_keys_map = {}
    return TransformerBlockSubmodules(layer_specs=[layer] * config.num_layers, layer_norm=Norm)
