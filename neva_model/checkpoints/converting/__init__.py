"""Models from one layout on the disk to another: Megatron's, that of transformers, that of the original LLaVA."""
