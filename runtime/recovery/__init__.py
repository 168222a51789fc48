"""Going on from the ledger: history, recall, fingerprints, resuming."""
