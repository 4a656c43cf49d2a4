"""Evaluation: held-out problems, and figures that come with their uncertainty."""
