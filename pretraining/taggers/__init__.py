"""Taggers: what turns text into spans with tags and bands, alone or in cascades."""
