"""Mistakes that a user can mend. The command line prints the sentence alone, without a
traceback.
"""


class TamisError(Exception):
    """A run cannot go on: one sentence that names the place and the fix (exit status 1)."""

    exit_status = 1


class RecipeError(TamisError):
    """The recipe or the command line is wrong, found before any work was done (exit status 2)."""

    exit_status = 2
