"""Folders of tensors: written by golden and split, read again, whoever wrote them."""
