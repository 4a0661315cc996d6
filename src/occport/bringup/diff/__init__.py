"""A chip's tensors against golden ones: how far apart, where worst, and which node is to blame."""
