"""The laboratory's comparisons: what missed labels cost, and what each objective is worth."""
