"""The figures of a service, in the format of Prometheus."""

import prometheus_client

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
FACES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """The figures of one service, in a registry of its own."""

    def __init__(self):
        self._registry = registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=registry)
        self.requests = prometheus_client.Counter(
            "fer_jax_requests", "Answered requests.", ["route", "status"], registry=registry
        )
        self.seconds = prometheus_client.Histogram(
            "fer_jax_request_seconds", "Time to answer.", ["route"], buckets=SECONDS, registry=registry
        )
        self.pictures = prometheus_client.Counter(
            "fer_jax_pictures", "Pictures, by outcome.", ["outcome"], registry=registry
        )
        self.faces = prometheus_client.Counter("fer_jax_faces", "Faces that were named.", registry=registry)
        self.batch_faces = prometheus_client.Histogram(
            "fer_jax_batch_faces", "Faces of a batch.", buckets=FACES, registry=registry
        )
        self.in_work = prometheus_client.Gauge("fer_jax_requests_in_work", "Requests in work.", registry=registry)
        self.queued = prometheus_client.Gauge(
            "fer_jax_requests_queued", "Requests that wait for a batch.", registry=registry
        )

    def text(self) -> bytes:
        """Returns all figures."""
        return prometheus_client.generate_latest(self._registry)
