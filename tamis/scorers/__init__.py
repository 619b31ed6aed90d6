"""Scorers: numbers about documents, and the selection of documents by them.

A scorer is a ``Measure``: it adds columns, and drops nothing. One file a method:

    fasttext.py     a linear classifier of words and pairs of words (DCLM, and any released .bin)
    perplexity.py   how well a language model predicts a document
    dsir.py         importance weights: how much more like the target than like the rest
    quality.py      a regression on embeddings, learned from somebody's ratings (FineWeb-Edu)
    difficulty.py   compression, lexical diversity, readability, fertility

``preselect.py``, ``perplexity_correlations.py`` and ``betr.py`` choose what a fastText classifier
is trained on; they are applied as one. ``annotate.py`` has a language model make the ratings that
``quality.py`` learns. ``combine.py`` makes one score of several, ``attributes.py`` buckets of them.
``score.py`` applies whatever ``tamis fit`` has trained, and ``select.py`` decides which documents
to keep.
"""
