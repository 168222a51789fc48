"""Ready-made agents, and the spelling of their tasks."""
