"""Training of LLaVA/NeVA models on Megatron-Core: everything that imports torch."""
