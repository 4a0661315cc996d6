"""One file a verb: its arguments, its call, what it prints. Only these files print."""
