"""Image files: reading, preprocessing, and finding those that are missing or too large."""
