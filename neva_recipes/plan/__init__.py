"""What a recipe costs, by plain arithmetic: never imports torch."""
