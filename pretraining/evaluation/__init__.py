"""Evaluation: what a trained model can do and does, each figure with its interval."""
