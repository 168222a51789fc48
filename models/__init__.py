"""The shipped model, one folder a model."""
