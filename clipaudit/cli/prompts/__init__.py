"""`clipaudit prompts`: one file a command."""
