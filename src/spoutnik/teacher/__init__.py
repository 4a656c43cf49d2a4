"""Teachers: one interface to whoever answers, grades or says how likely tokens are. Imports no torch; `local` and `stored` do."""
