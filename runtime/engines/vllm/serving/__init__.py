"""vLLM servers: started, and checked before they are trusted."""
