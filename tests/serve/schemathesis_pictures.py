"""Has Schemathesis send pictures where the schema says bytes: other bytes are refused, which a schema cannot say."""

import serving
from hypothesis import strategies
from schemathesis import openapi

PICTURES = [serving.encode(serving.scene(*shares), kind) for kind in ("png", "jpeg") for shares in ((), (0.2,), (1, 0))]

for media_type in ("application/octet-stream", "image/*", "image/jpeg", "image/png", "image/webp"):
    openapi.media_type(media_type, strategies.sampled_from(PICTURES))
