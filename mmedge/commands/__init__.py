"""One file per command; each imports what it needs inside its function, so that listing them all costs little."""
