"""The two operators that no framework has: modulated deformable convolution and multi-scale deformable attention."""
