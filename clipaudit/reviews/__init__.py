"""What persons said of labels: files of marks, and how far two reviewers agree."""
