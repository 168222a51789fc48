"""The shipped policies, as YAML."""
