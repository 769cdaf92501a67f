"""MixFix: a classifier from the clean subset that absorbs and relabels the rest as it learns (section 3.3, eq. 7)."""
