"""Training configurations of the laboratory: one recipe, ten ways to treat the labels."""
