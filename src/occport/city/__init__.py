"""A synthetic city: scenes, their exact occupancy, and six rendered camera images. numpy, no torch."""
