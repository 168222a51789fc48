"""Full text over prompts and outputs: the index, its words, and finding."""
