"""What a file costs: parameters, products, bytes and time on a chip."""
