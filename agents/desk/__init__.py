"""The ops desk: its language, its oracle, its tools, and the agent that works there."""
