"""A small causal model with weights far from zero, whose answers differ from prompt to prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

# That of Qwen's models: the server of transformers looks for it in what models of this form say.
TEMPLATE = (
    "{% for one in messages %}<|im_start|>{{ one.role }}\n{{ one.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_model(folder: Path, context: int = 256, template: str | None = None) -> Path:
    """A model of the form that trainings end with: bytes as tokens, Qwen3's layers."""
    pytest.importorskip("transformers")
    from tamis.trainers.export import save_model
    from tamis.trainers.model import Decoder, model_config
    from tamis.trainers.tokenizer import byte_tokenizer

    config = model_config(
        vocab_size=258, hidden_size=32, layers=2, heads=2, kv_heads=1, head_dim=16,
        context=context, init_std=0.3,
    )  # fmt: skip
    save_model(Decoder(config, seed=3), byte_tokenizer(), folder)
    if template is not None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without a chat template."""
    return write_model(tmp_path_factory.mktemp("plain") / "tiny")


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with one."""
    return write_model(tmp_path_factory.mktemp("chat") / "tiny", template=TEMPLATE)
