"""The shipped model, one folder a model, and presets for public tag-pretrained checkpoints."""
