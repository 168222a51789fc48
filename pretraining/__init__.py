"""How the shipped model was made: a seeded corpus with an oracle, and conditional training."""
