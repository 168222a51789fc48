"""The local engine: a model in this process, on CPU or CUDA."""
