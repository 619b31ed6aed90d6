"""What the released refining models are asked.

The document model gets the text as it is, the chunk model a window of numbered lines between
``[doc]`` and ``[/doc]``; both with one system prompt. Source: Zhou et al. 2024 (arXiv:2409.17115)
and the code published with it (data_gen/tasks).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tamis.filters.refine.chunks import Chunk, CountTokens, fitting
from tamis.generation.generator import Prompt

SYSTEM = "You are a helpful, respectful and honest assistant."
DOCUMENT_PROMPT_TOKENS = 2000
"""The most tokens of a prompt of the document model."""
DOCUMENT_ANSWER_TOKENS = 16
"""``keep_doc()`` has four or five; the published code allows 2000."""
CHUNK_ANSWER_TOKENS = 256
_SURELY_ENOUGH = 8
"""Characters a token, on average over a long text."""
TEMPLATE_TOKENS = 24
"""Room for what a chat template puts around the two messages."""


def document_prompts(
    texts: Sequence[str],
    count_tokens: CountTokens,
    most: int = DOCUMENT_PROMPT_TOKENS,
    compat: Literal["prox"] | None = None,
) -> list[Prompt]:
    """The questions whether to keep documents, of which so much is shown that the whole prompt has
    ``most`` tokens or fewer.

    With ``compat: prox`` as much is shown as the published code shows: it cuts the finished prompt
    on the right, so that no room is kept for the end of the template, which long documents lose.
    A chat model is not asked without that end; it is here as always.

    Raises:
        ValueError: if ``most`` has no room for a text.
    """
    if compat == "prox":
        around = count_tokens([llama2_chat(Prompt("", SYSTEM)).removesuffix(_LLAMA2_END)])[0]
    else:
        around = count_tokens([SYSTEM])[0] + TEMPLATE_TOKENS
    room = most - around
    if room < 1:
        raise ValueError(f"a prompt of {most} tokens has no room for a document")
    # Most documents fit, which one call tells.
    shown = [text[: _SURELY_ENOUGH * room] for text in texts]
    sizes = count_tokens(shown)
    fits = [
        size <= room and len(one) < _SURELY_ENOUGH * room
        for one, size in zip(shown, sizes, strict=True)
    ]
    return [
        Prompt(text if whole else fitting(text, count_tokens, room), SYSTEM)
        for text, whole in zip(texts, fits, strict=True)
    ]


def chunk_prompt(chunk: Chunk) -> Prompt:
    """The question which lines and strings of a window to remove."""
    return Prompt(f"[doc]\n{chunk.text}\n[/doc]", SYSTEM)


_LLAMA2_END = " [/INST]"


def llama2_chat(prompt: Prompt) -> str:
    """The prompt in the template of the released document model, for servers that take text."""
    return f"<s>[INST] <<SYS>>\n{prompt.system}\n<</SYS>>\n\n{prompt.user}{_LLAMA2_END}"
