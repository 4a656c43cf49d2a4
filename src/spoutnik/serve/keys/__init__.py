"""API keys: made once, kept as hashes, limited and charged."""
