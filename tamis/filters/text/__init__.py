"""What is computed about the text of a batch once, for all filters: words, lines and repeated
n-grams.
"""
