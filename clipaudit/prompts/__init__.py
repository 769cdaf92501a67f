"""Prompts by class: the sets, their check, and how new ones are written."""
