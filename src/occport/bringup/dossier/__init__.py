"""Everything about one file on one page."""
