"""A run for people and other programs: a table, a page, a trace, rows."""
