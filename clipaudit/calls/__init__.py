"""The public calls, one file each: what every command and every user of the library runs."""
