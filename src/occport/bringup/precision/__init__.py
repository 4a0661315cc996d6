"""What half precision does to a file: hazards before a kernel exists."""
