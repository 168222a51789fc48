"""Training configurations, as YAML."""
