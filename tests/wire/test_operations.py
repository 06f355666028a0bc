"""Operations by their paths."""

from __future__ import annotations

import pytest

from chatpool._wire import operations


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        ("/chat/completions", operations.CHAT),
        ("/v1/chat/completions", operations.CHAT),
        ("/chat/completions/", operations.CHAT),
        ("/openai/deployments/mine/chat/completions?api-version=1", operations.CHAT),
        ("/completions", operations.COMPLETIONS),
        ("/v1/completions", operations.COMPLETIONS),
        ("/responses", operations.RESPONSES),
        ("/embeddings", operations.EMBEDDINGS),
        ("/moderations", operations.MODERATIONS),
        ("/responses/resp_1", operations.OTHER),
        ("/models", operations.OTHER),
        ("/", operations.OTHER),
        ("", operations.OTHER),
    ],
)
def test_the_end_of_a_path_tells_its_operation(path, operation):
    assert operations.operation_of(path) == operation
