"""Algorithms, one file each: who deserves credit, as weights of the loss streams that all of them share."""
