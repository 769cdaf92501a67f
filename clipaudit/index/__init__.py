"""The clean index: its columns, its metadata and its file; true labels beside it."""
