"""Packages that offer families, as somebody else would write and install them."""

from tests import installed_packages

LAB = """
    import dataclasses

    from neva_recipes.families import Layout, Weight
    from neva_recipes.families.llama import LLAMA

    LAB = dataclasses.replace(
        LLAMA,
        name="lab",
        model_type="seed_oss",
        keys=dataclasses.replace(
            LLAMA.keys,
            fixed={**LLAMA.keys.fixed, "attention_bias": True, "attention_out_bias": False},
            idle=frozenset({"residual_dropout"}),
            architectures=("SeedOssForCausalLM",),
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
"""A family of models that are Seed-OSS to transformers: Llama with biases of query, key and value."""


def install(folder, package="lab", source=LAB, entry_points="lab = lab:LAB"):
    """Install a package that offers families into a folder for modules."""
    installed_packages.install(folder, package, source, "neva_recipes.families", entry_points)
