"""The engine over a vLLM server, or another that speaks its wire."""
