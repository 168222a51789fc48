"""The ops desk: its language, its oracle, its tools on a real folder, and the agent."""
