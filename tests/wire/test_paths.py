"""Which operation a path stands for."""

from __future__ import annotations

import pytest

from chatpool.wire import paths


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        ("/chat/completions", paths.CHAT),
        ("/v1/chat/completions", paths.CHAT),
        ("/chat/completions/", paths.CHAT),
        ("/openai/deployments/mine/chat/completions?api-version=1", paths.CHAT),
        ("/completions", paths.COMPLETIONS),
        ("/v1/completions", paths.COMPLETIONS),
        ("/responses", paths.RESPONSES),
        ("/embeddings", paths.EMBEDDINGS),
        ("/moderations", paths.MODERATIONS),
        ("/responses/resp_1", paths.OTHER),
        ("/models", paths.OTHER),
        ("/", paths.OTHER),
        ("", paths.OTHER),
    ],
)
def test_the_end_of_a_path_tells_its_operation(path, operation):
    assert paths.operation_of(path) == operation
