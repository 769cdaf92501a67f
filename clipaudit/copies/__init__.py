"""Copies of images: exact ones by their bytes or pixels, near ones by embedding and a perceptual hash."""
