"""Breaking a ledger on purpose: what ``benchmarks/damage.py`` does to it, and what it checks."""
