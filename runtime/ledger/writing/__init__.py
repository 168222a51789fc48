"""How events get into the ledger: run logs, appending, the writer and its insertions."""
