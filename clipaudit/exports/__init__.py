"""The forms in which an index is written for other programs: a file each, and a row in `formats.FORMATS`."""
