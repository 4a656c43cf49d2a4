"""A dry run: all that can be known of a recipe without computing it: whether it can run, in how much memory, and what is missing."""
