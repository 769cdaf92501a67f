"""The CLIP model: loaded, tried out, and kept busy."""
