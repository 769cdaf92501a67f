"""Training from a clean index: MixFix (section 3.3, eq. 7), and the methods that it is compared with."""
