"""The training loop: Lightning's Trainer around Megatron's schedules and optimizer."""
