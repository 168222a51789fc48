"""Killing runs and resuming them: what ``benchmarks/resume.py`` does, and what it checks."""
