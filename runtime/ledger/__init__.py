"""The append-only record of every run, and the queries that people ask of it."""
