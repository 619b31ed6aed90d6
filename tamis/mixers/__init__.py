"""Mixers: how much of each source to train on.

A mixer says which proportions to train on next and is told the losses that came of it, until it has
nothing more to ask; then it recommends proportions. So methods that know the answer at once, that
need many small runs, or that learn while a model trains, are used in the same way.

    problem.py          what is decided: sources, targets, budget, floors and caps
    mixer.py            the protocol: propose, observe, proportions; a state that can be saved
    simplex.py          proportions within bounds, and how they are updated

    static.py           natural, uniform, temperature, UniMax, equitable allocation
    cooldown.py         a temperature that falls while training
    designs.py          which mixtures to run to learn most
    runs.py             tables of runs: proportions and the losses they ended with
    mixing_laws.py      losses as functions of the proportions, and the best proportions
    regmix.py           the same by regression trees
    cmr.py, dcpt.py     how much new data a model takes without losing what it knew
    aioli.py, skill_it.py, doge.py, odm.py     while a model trains
"""
