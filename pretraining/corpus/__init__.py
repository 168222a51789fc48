"""The corpus: documents, their schemes, and the files they are read from and written to."""
