"""Probing, reading and writing media files. Knows nothing of networks."""
