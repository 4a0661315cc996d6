"""The closed table of known bugs of kernels, each as the golden arithmetic with one thing wrong in it."""
