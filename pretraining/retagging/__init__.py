"""Tagged text read again by a model that was trained on such."""
