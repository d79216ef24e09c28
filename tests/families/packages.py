"""Packages that offer families, as somebody else would write and install them."""

from tests import installed_packages

LAB = """
    import dataclasses

    from neva_recipes.families import Layout, Weight
    from neva_recipes.families.llama import LLAMA

    _FIXED = {key: value for key, value in LLAMA.keys.fixed.items() if key != "attention_bias"}

    LAB = dataclasses.replace(
        LLAMA,
        name="lab",
        model_type="qwen2",
        keys=dataclasses.replace(
            LLAMA.keys,
            fixed={**_FIXED, "use_sliding_window": False},
            idle=frozenset({"sliding_window", "max_window_layers", "layer_types"}),
            architectures=("Qwen2ForCausalLM",),
        ),
        layer=(
            *LLAMA.layer,
            Weight(
                "self_attention.linear_qkv.bias",
                {f"self_attn.{part}_proj.bias": (width,) for part, width in zip("qkv", ("queries", "keys", "keys"))},
                Layout.GROUPS,
            ),
        ),
        core={**LLAMA.core, "add_qkv_bias": True},
    )
"""
"""A family of models that are Qwen2 to transformers: Llama with biases of query, key and value."""


def install(folder, package="lab", source=LAB, entry_points="lab = lab:LAB"):
    """Install a package that offers families into a folder for modules."""
    installed_packages.install(folder, package, source, "neva_recipes.families", entry_points)
