"""Where tokens come from: sources, their mixture, and token files whose reading position is a plain number."""
