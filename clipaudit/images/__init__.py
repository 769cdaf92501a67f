"""From the bytes of an image file to pixels, or to the reason why there are none."""
