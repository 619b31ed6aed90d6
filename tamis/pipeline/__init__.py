"""How documents flow: read -> stages -> write, cut into phases at the fitted stages, with every
decision on record.
"""
