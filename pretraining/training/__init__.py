"""Training: recipe, tokenizer, batches, optimisers, and the run."""
