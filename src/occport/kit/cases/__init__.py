"""Cases: calls of the two operators with their right outputs and how far a right kernel may be off, in memory and on disk."""
