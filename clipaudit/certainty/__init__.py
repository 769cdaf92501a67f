"""How many labels are wrong, and how sure that is: designed samples, curves, intervals. Arrays in, arrays out."""
