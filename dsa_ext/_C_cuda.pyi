"""Registers the CUDA operations with torch as it is imported (csrc/torch/); it has no names of its own."""
