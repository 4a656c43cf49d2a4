"""Models over HTTP: dialects in front, one engine behind."""
