"""The request body fields that the installed SDK knows: a newer SDK may know more than the tables of this package.

They are read from the SDK's source, because importing its models takes half a second.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

#: The SDK's module and class of each endpoint's request body.
REQUEST_MODELS = {
    "/v1/chat/completions": ("chatcompletionrequest", "ChatCompletionRequest"),
    "/v1/embeddings": ("embeddingrequest", "EmbeddingRequest"),
    "/v1/fim/completions": ("fimcompletionrequest", "FIMCompletionRequest"),
    "/v1/moderations": ("classificationrequest", "ClassificationRequest"),
    "/v1/chat/moderations": ("chatmoderationrequest", "ChatModerationRequest"),
    "/v1/ocr": ("ocrrequest", "OCRRequest"),
    "/v1/classifications": ("classificationrequest", "ClassificationRequest"),
    "/v1/chat/classifications": ("chatclassificationrequest", "ChatClassificationRequest"),
    "/v1/conversations": ("conversationrequest", "ConversationRequest"),
    "/v1/audio/transcriptions": ("audiotranscriptionrequest", "AudioTranscriptionRequest"),
}


@cache
def sdk_fields(path: str) -> frozenset[str]:
    """Return the fields that the installed SDK has for an endpoint's request body; none if it cannot be read."""
    module, model = REQUEST_MODELS[path]
    source = _models() / f"{module}.py"
    try:
        tree = ast.parse(source.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return frozenset()
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == model)
    return frozenset(
        _name(statement)
        for found in classes
        for statement in found.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    )


def _models() -> Path:
    spec = find_spec("mistralai")
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    return Path(places[0] if places else "") / "client" / "models"


def _name(statement: ast.AnnAssign) -> str:
    """Return a field's name in JSON, which may be an alias of the model's name: Annotated[…, Field(alias="input")]."""
    for node in ast.walk(statement.annotation):
        if isinstance(node, ast.keyword) and node.arg == "alias" and isinstance(node.value, ast.Constant):
            return str(node.value.value)
    assert isinstance(statement.target, ast.Name)
    return statement.target.id
