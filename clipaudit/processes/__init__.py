"""Processes of one machine that share the passes of a fit over many embeddings: one a GPU, or several on the CPU."""
