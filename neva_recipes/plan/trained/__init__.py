"""What a model has been trained on: the trainings of its weights, and samples of other files among them."""
