"""Requests that come when they are due, and machines that are kept busy for minutes."""
