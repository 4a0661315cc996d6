"""Self-contained pages: one look for all of them."""
