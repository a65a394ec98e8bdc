"""What the machine tells: what it is, how it is doing, what memory, energy and starting cost."""
