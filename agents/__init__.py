"""What a user writes: thoughts, operations, plans, tools; and the ready-made agents."""
