"""The method of the paper on arrays: its configuration, its steps, and what makes a result implausible."""
