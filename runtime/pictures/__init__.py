"""Pictures of a run's graph: what is shown and what is folded, where it stands, how it looks."""
