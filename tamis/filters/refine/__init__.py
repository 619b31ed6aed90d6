"""ProX: a small program for each document that says which of its lines go, and which strings.

    execute(text, program)      the text that the program leaves, None for a document that it drops
    run(text, program)          the same, with what was done, what was wrong, and why

``program`` is the language, ``executor`` what its calls do, ``prox`` what they do in the published
executor. ``chunks`` and ``prompts`` are what a language model is asked, ``writers`` who may write
the programs, ``stage`` the stage ``refine``.

Source: Zhou et al. 2024, Programming Every Example (arXiv:2409.17115).
"""

from tamis.filters.refine.executor import Limits, Outcome, execute, keeps, run
from tamis.filters.refine.program import parse

__all__ = ["Limits", "Outcome", "execute", "keeps", "parse", "run"]
