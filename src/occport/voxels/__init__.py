"""Occupancy volumes: their classes and colours, their grid in metres, their files, and looking at them. numpy, no torch."""
