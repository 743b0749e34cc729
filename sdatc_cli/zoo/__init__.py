"""The models that can be had: what they are made of, where it comes from, where it lies."""
