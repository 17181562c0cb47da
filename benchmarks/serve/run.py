"""How fast does the service answer, what does it refuse, and does its memory grow?

pip install 'fer-jax[serve]'
python -m fer_jax.pretrained --fetch blazeface
FER2013_DIR=<folder with csv/fer2013.csv> python benchmarks/serve/run.py [--only load|hostile|memory]

Starts `fer-jax serve` on this machine and calls it from threads of this process. Writes results.json to this folder.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import http.client
import io
import itertools
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np
from PIL import Image

from fer_jax import live, wording
from fer_jax import workdir as workdir_lib

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "experiments" / "faces"))
sys.path.insert(0, str(HERE.parents[1] / "tests"))
import bombs  # noqa: E402
import scenes  # noqa: E402

TOKEN = "a token for this benchmark"
CLIENTS = 8
BODY_SECONDS = 3
PHOTOGRAPH_EVERY = 20  # requests for the memory; the others are cropped faces
SIZE, FACE_PX, FACES, PICTURES = (640, 480), 128, 3, 32


def photographs():
    """Returns JPEGs of three faces of PublicTest each, on photographs without people."""
    faces = scenes.read_faces(scenes.data_folder(), "PublicTest")
    grounds = [np.asarray(Image.fromarray(one).resize(SIZE)) for one in scenes.backgrounds().values()]
    squares = [((0.5 + place) * SIZE[0] / FACES, SIZE[1] / 2, FACE_PX, 0.0) for place in range(FACES)]
    shown = [faces[FACES * number : FACES * (number + 1)] for number in range(PICTURES)]
    return [_jpeg(scenes.compose(some, grounds[at % len(grounds)], squares)) for at, some in enumerate(shown)]


def cropped_faces():
    """Returns JPEGs of faces of PublicTest, enlarged."""
    faces = scenes.read_faces(scenes.data_folder(), "PublicTest")[:PICTURES]
    return [_jpeg(np.asarray(Image.fromarray(np.squeeze(face)).resize((FACE_PX, FACE_PX)))) for face in faces]


def _jpeg(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "jpeg", quality=90)
    return stream.getvalue()


@contextlib.contextmanager
def service(*flags):
    """Yields the port of a service."""
    command = [sys.executable, "-m", "fer_jax.serve", "--port=0", f"--body_seconds={BODY_SECONDS}", *flags]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "FER_JAX_TOKEN": TOKEN}
    ) as one:
        try:
            yield int(one.stdout.readline().rpartition(":")[2].strip("/\n"))
        finally:
            one.terminate()


def connect(port):
    """Returns a connection to the service."""
    return http.client.HTTPConnection("127.0.0.1", port, timeout=120)


def post(connection, path, body, token=TOKEN):
    """Sends a picture; returns (status, JSON)."""
    headers = {"Content-Type": "image/jpeg", "Authorization": f"Bearer {token}"}
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def get(port, path):
    """Returns the answer to a GET as text."""
    with contextlib.closing(connect(port)) as connection:
        connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
        return connection.getresponse().read().decode()


def resident_mib(port):
    """Returns the resident memory of the service, by its own metrics."""
    (line,) = (line for line in get(port, "/metrics").splitlines() if line.startswith("process_resident_memory_bytes "))
    return round(float(line.split()[1]) / 2**20)


def send_all(port, count, make_request):
    """Sends requests (path, body) = make_request(number) from CLIENTS threads; returns (seconds of each, outcomes)."""
    numbers = itertools.count()

    def client():
        taken, outcomes, connection = [], collections.Counter(), connect(port)
        while (number := next(numbers)) < count:
            began = time.perf_counter()
            try:
                status, record = post(connection, *make_request(number))
                outcomes["faces"] += len(record.get("faces", ()))
                outcomes[status] += 1
            except (OSError, http.client.HTTPException, ValueError):
                outcomes["lost"] += 1
                connection.close()
            taken.append(time.perf_counter() - began)
        connection.close()
        return taken, outcomes

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        found = [one.result() for one in [pool.submit(client) for _ in range(CLIENTS)]]
    taken, outcomes = zip(*found, strict=True)
    return list(itertools.chain.from_iterable(taken)), sum(outcomes, collections.Counter())


def measure_load(requests):
    """Returns the latencies of CLIENTS clients that send one request after the other."""
    found = {}
    jobs = {"photographs": ("/v1/predict", photographs()), "faces": ("/v1/predict?faces=given", cropped_faces())}
    with service() as port:
        found["model"] = {name: json.loads(get(port, "/v1/model"))[name] for name in ("name", "views", "runtime")}
        for name, (path, bodies) in jobs.items():
            with contextlib.closing(connect(port)) as connection:
                alone = []
                for body in bodies:
                    began = time.perf_counter()
                    post(connection, path, body)
                    alone.append(time.perf_counter() - began)
            began = time.perf_counter()
            taken, outcomes = send_all(port, CLIENTS * requests, lambda n, p=path, b=bodies: (p, b[n % len(b)]))
            seconds = time.perf_counter() - began
            found[name] = {
                "alone_p50_ms": live.percentiles_ms(alone)[0],
                "requests": len(taken),
                "p50_ms": round(1000 * float(np.percentile(taken, 50)), 1),
                "p99_ms": round(1000 * float(np.percentile(taken, 99)), 1),
                "requests_per_second": round(len(taken) / seconds, 1),
                "lost": len(taken) - outcomes[200],
                "faces_found": outcomes["faces"],
            }
            print(name, found[name], flush=True)
        batches = [line for line in get(port, "/metrics").splitlines() if line.startswith("fer_jax_batch_faces_")]
        totals = {line.split()[0]: float(line.split()[1]) for line in batches if "bucket" not in line}
        found["faces_a_batch"] = round(totals["fer_jax_batch_faces_sum"] / totals["fer_jax_batch_faces_count"], 2)
    return found


def stream(port, pieces, length=None):
    """Sends a body in pieces until an answer comes; returns (status, bytes that were sent)."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: image/png\r\n{size}"
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        line.sendall(f"{head}\r\n\r\n".encode())
        line.setblocking(False)
        for piece in pieces:
            left = memoryview(b"%x\r\n%s\r\n" % (len(piece), piece) if length is None else piece)
            while left:
                with contextlib.suppress(BlockingIOError):
                    return int(line.recv(4096).split()[1]), sent
                with contextlib.suppress(BlockingIOError):
                    left = left[line.send(left) :]
            sent += len(piece)
        line.settimeout(60)
        return int(line.recv(4096).split()[1]), sent


def slowly():
    """Yields a byte every half second."""
    while True:
        time.sleep(0.5)
        yield b"a"


def measure_hostile():
    """Returns the status that each hostile request got, and whether a picture was answered afterwards."""
    good = photographs()[0]
    found = {}
    with service() as port:

        def plain(body, token=TOKEN):
            with contextlib.closing(connect(port)) as connection:
                return post(connection, "/v1/predict", body, token)[0], len(body)

        mebibyte = bytes(2**20)
        attacks = {
            "1 GiB, length announced": lambda: stream(port, itertools.repeat(mebibyte, 1024), 2**30),
            "1 GiB, streamed in chunks": lambda: stream(port, itertools.repeat(mebibyte, 1024)),
            "PNG of 60,000 x 60,000 pixels": lambda: plain(bombs.png(60_000)),
            "TIFF of 1 pixel in a tile of 9,600 x 9,600": lambda: plain(bombs.tiff(9_600)),
            "garbage": lambda: plain(np.random.default_rng(0).bytes(100_000)),
            "half a JPEG": lambda: plain(good[: len(good) // 2]),
            "a byte every half second": lambda: stream(port, slowly(), 1000),
            "a wrong token": lambda: plain(good, "another token, not the one"),
        }
        before = resident_mib(port)
        for name, attack in attacks.items():
            began = time.perf_counter()
            status, sent = attack()
            seconds = round(time.perf_counter() - began, 2)
            found[name] = {"status": status, "bytes_sent": sent, "seconds": seconds, "lives": plain(good)[0] == 200}
            print(name, found[name], flush=True)
        return {"requests": found, "mib_before": before, "mib_after": resident_mib(port)}


def measure_memory(requests):
    """Returns the memory of the service after each tenth of the requests; one in PHOTOGRAPH_EVERY is a photograph."""
    pictures, faces, memory, lost = photographs(), cropped_faces(), {}, 0

    def make_request(number):
        if number % PHOTOGRAPH_EVERY == 0:
            return "/v1/predict", pictures[number // PHOTOGRAPH_EVERY % PICTURES]
        return "/v1/predict?faces=given", faces[number % PICTURES]

    with service() as port:
        memory[0] = resident_mib(port)
        for part in range(1, 11):
            taken, outcomes = send_all(port, requests // 10, make_request)
            lost += len(taken) - outcomes[200]
            memory[part * requests // 10] = resident_mib(port)
            print(f"{wording.count(part * requests // 10, 'request')}: {memory[part * requests // 10]} MiB", flush=True)
    return {"requests": requests, "lost": lost, "mib_after_requests": memory}


def main():
    """Measures and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=200, help="of each client; default: %(default)s")
    parser.add_argument("--total", type=int, default=10_000, help="requests for the memory; default: %(default)s")
    parser.add_argument("--only", choices=("load", "hostile", "memory"))
    options = parser.parse_args()
    path = HERE / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    works = {
        "load": lambda: measure_load(options.requests),
        "hostile": measure_hostile,
        "memory": lambda: measure_memory(options.total),
    }
    made = workdir_lib.facts()  # now: afterwards the file with the results is a modified one
    for name, work in works.items():
        if options.only in (None, name):
            load = round(os.getloadavg()[0], 1)
            results[name] = work() | {"clients": CLIENTS, "load_before": load, "made": made}
            workdir_lib.write_json(path, results)


if __name__ == "__main__":
    main()
