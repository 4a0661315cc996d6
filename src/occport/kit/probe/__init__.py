"""Asking an unknown compiler what it takes: tiny models, each with one open question, and a dialect from the answers."""
