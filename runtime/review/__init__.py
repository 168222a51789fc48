"""What people decide on thoughts that wait."""
