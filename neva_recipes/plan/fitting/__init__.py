"""Whether a recipe fits on its machines, what makes it fit, and what it wastes there."""
