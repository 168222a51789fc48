"""Whether the record is as it was written: verification, checkpoints, and what an auditor needs."""
