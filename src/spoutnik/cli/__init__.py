"""The command line: one small file per command; torch is imported only inside a command that needs it."""
