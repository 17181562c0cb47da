"""What a request may take."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of a service.

    max_bytes, body_seconds: of a body, and its time to arrive; max_pixels: of a picture; max_files: of a batch;
    max_requests: in work at once.
    """

    max_bytes: int = 20 * 2**20
    body_seconds: float = 20
    max_pixels: int = 50_000_000
    max_files: int = 16
    max_requests: int = 32
