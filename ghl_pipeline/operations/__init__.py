"""What an operator reads and does: the status of every location."""
