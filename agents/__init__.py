"""What a user writes: thoughts, operations, plans and tools; and the ready-made agents."""
