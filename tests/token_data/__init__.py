"""Text that becomes indexed datasets."""
