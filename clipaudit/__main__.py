"""`python -m clipaudit`."""

from clipaudit.cli import main

main()
