"""Inside of the graphs: the time of each node, what it computes and moves, and what the machine could do at most."""
