"""Selectors: from P(y|x) to clean or noisy (eq. 5, eq. 6), and their combination. Arrays in, arrays out."""
