"""Runs beside each other and against rules."""
