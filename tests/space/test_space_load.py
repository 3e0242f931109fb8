"""Many visitors at once."""

import asyncio
import itertools
import json
import random
import re
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from conftest import REPOSITORY, draw_picture
from gradio_client import Client
from gradio_client.utils import Status
from space_process import running_space
from upload_corpus import corpus, encoded


CROWD, WARM_UP_SECONDS, SECONDS = 64, 60, 60
JSON = {"content-type": "application/json"}
NO_LIMITS = httpx.Limits(max_connections=None, keepalive_expiry=1)  # the server closes idle connections after five
PATIENCE = 300  # seconds that an answer may take
SAMPLED = ["faces-vae", 7, 1, "own"]
MORPHED = ["lerp", 4, 16, "webp"]
NO_FILE = {"path": "/etc/passwd"}
CALLS = {  # of every endpoint, for a picture that was uploaded
    "sample": lambda picture: ["faces-vae", 4, 7, 1, "own", ""],
    "sample_rows": lambda picture: ["faces-dcgan", 7, "own", ""],
    "crop_face": lambda picture: [picture, "faces", "face"],
    "reconstruct": lambda picture: [picture, "faces", "centre"],
    "interpolate": lambda picture: [["faces-vae", "faces-vaegan"], picture, picture, 0, 1, *MORPHED],
    "compare_sharpness": lambda picture: ["faces", 7],
    "compare_reconstructions": lambda picture: [picture, "faces"],
    "latent_pca": lambda picture: [*SAMPLED, picture, 2.5, *[0] * 13, ""],
    "pca_sweep": lambda picture: [*SAMPLED, picture, ""],
}
REFUSED_CALLS = {  # one of what each may be asked and must not do
    "sample": ["../secrets", 10**9, -1, float("nan"), "own", ""],
    "sample_rows": ["faces-dcgan", 10**400, "own", ""],
    "crop_face": [NO_FILE, "faces", "face"],
    "reconstruct": [{"path": "http://169.254.169.254/"}, "faces", "centre"],
    "interpolate": [["faces-vae"] * 5, None, None, 0, 1, *MORPHED],
    "compare_sharpness": ["faces", float("inf")],
    "compare_reconstructions": [None, "faces"],
    "latent_pca": [*SAMPLED, None, 99, *[0] * 13, ""],
    "pca_sweep": [],
}


def draw_at_once(visitors: list[Client], first_seed: int) -> tuple[list[str], list[int]]:
    """All visitors ask for samples, each once the one before is in the queue: the seeds of what each got, in their
    order, and their places in the order in which they got it."""
    finished: list[int] = []
    jobs = []
    for place, visitor in enumerate(visitors):
        jobs.append(
            visitor.submit(
                model="faces-vae",
                count=4,
                seed=first_seed + place,
                temperature=1,
                prior="own",
                api_name="/sample",
                result_callbacks=lambda *_, place=place: finished.append(place),
            )
        )
        while jobs[-1].status().code in (Status.STARTING, Status.JOINING_QUEUE):
            time.sleep(0.005)  # so that there is an order to keep
    captions = [job.result()[0]["caption"] for job in jobs]
    while len(finished) < len(visitors):
        time.sleep(0.01)
    return [caption.split("seed ")[1].split(",")[0] for caption in captions], finished


@pytest.mark.parametrize(("num_visitors", "rounds"), [(12, 2), pytest.param(32, 3, marks=pytest.mark.slow)])
def test_visitors_at_once_are_served_in_order_without_an_error(shared_space, num_visitors, rounds):
    visitors = [Client(shared_space.address, verbose=False, download_files=False) for _ in range(num_visitors)]
    memory = []
    for first_seed in range(0, 100 * rounds, 100):
        seeds, finished = draw_at_once(visitors, first_seed)
        assert seeds == [str(first_seed + place) for place in range(num_visitors)]  # each got what it asked for
        assert all(abs(rank - place) <= 3 for rank, place in enumerate(finished))  # answers travel for a moment
        memory.append(psutil.Process(shared_space.process.pid).memory_info().rss)
    assert memory[-1] < 1.05 * memory[0]


@dataclass
class Requests:
    """What became of many requests: how many of each outcome, the seconds that answers took, and for those without an
    answer when they were sent and what came instead."""

    outcomes: Counter = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    lost: list[tuple[float, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def count(self, asked: str, answer: "Answer", started: float) -> None:
        """Adds one, which began at `started`."""
        self.outcomes[answer.kind] += 1
        if answer.kind == "lost":
            self.lost.append((started, answer.said))
        else:
            self.seconds.append(time.monotonic() - started)
        if answer.kind == "wrong" or (asked == "refused" and answer.kind == "given"):
            self.wrong.append(f"{asked}: {answer.said}")

    def report(self) -> str:
        """One line."""
        p50, p95, p99 = np.percentile(self.seconds, [50, 95, 99])
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(self.outcomes.items()))
        return f"{self.outcomes.total()} requests: {counts}; p50 {p50:.2f} s, p95 {p95:.2f} s, p99 {p99:.2f} s"


@dataclass
class Answer:
    """`kind` is given, refused (in one sentence), full (the queue was), lost (no answer came) or wrong."""

    kind: str
    said: Any = None


async def call(client: httpx.AsyncClient, endpoint: str, values: list) -> Answer:
    """Asks an endpoint and waits for its answer."""
    posted = await client.post(f"gradio_api/call/{endpoint}", content=json.dumps({"data": values}), headers=JSON)
    if posted.status_code == 503 and "Queue is full" in posted.text:
        return Answer("full")
    if posted.status_code != 200:
        return Answer("wrong", f"{endpoint}: {posted.status_code} {posted.text[:200]}")
    try:
        stream = (await client.get(f"gradio_api/call/{endpoint}/{posted.json()['event_id']}")).text
    except httpx.TransportError as error:
        return Answer("lost", repr(error))
    ended = re.findall(r"event: (complete|error)\ndata: (.*)", stream)
    if not ended:
        return Answer("lost", stream[-200:])
    event, data = ended[-1]
    if event == "complete":
        return Answer("given", json.loads(data))
    sentence = (json.loads(data) or {}).get("error")
    is_sentence = isinstance(sentence, str) and re.fullmatch(r"[A-Z][^\n]+\.", sentence)
    return Answer("refused" if is_sentence and "Traceback" not in sentence else "wrong", f"{endpoint}: {sentence}")


async def upload(client: httpx.AsyncClient, name: str, content: bytes) -> dict | None:
    """Uploads a file: what stands for it in calls, or None if it was refused as too large."""
    posted = await client.post("gradio_api/upload", files={"files": (name, content)})
    assert posted.status_code in (200, 413), posted.text
    return {"path": posted.json()[0], "meta": {"_type": "gradio.FileData"}} if posted.status_code == 200 else None


async def visit(client: httpx.AsyncClient, number: int, until: float, found: Requests, files: list[tuple]) -> None:
    """A visitor who asks for one thing after the other: what the endpoints are made for, what they refuse, and what
    they make of hostile uploads."""
    choose = random.Random(number)
    picture = await upload(client, "picture.jpg", encoded(draw_picture(number), "jpg"))
    while time.monotonic() < until:
        endpoint, started = choose.choice(list(CALLS)), time.monotonic()
        asked = choose.choice(["given", "given", "refused", "upload"])
        if asked == "upload":
            sent = await upload(client, *choose.choice(files))
            endpoint = choose.choice(["crop_face", "reconstruct", "compare_reconstructions", "pca_sweep"])
            answer = await call(client, endpoint, CALLS[endpoint](sent)) if sent else Answer("refused")
        else:
            answer = await call(
                client, endpoint, REFUSED_CALLS[endpoint] if asked == "refused" else CALLS[endpoint](picture)
            )
            if asked == "given" and answer.kind == "refused":
                answer.kind = "wrong"
        found.count(asked, answer, started)
        if answer.kind == "full":
            await asyncio.sleep(1)


async def crowd(address: str, seconds: float, first: int, files: list[tuple]) -> Requests:
    """All visitors for some seconds, and until the last answer."""
    found = Requests()
    async with httpx.AsyncClient(base_url=address, timeout=PATIENCE, limits=NO_LIMITS) as client:
        until = time.monotonic() + seconds
        await asyncio.gather(*(visit(client, first + each, until, found, files) for each in range(CROWD)))
    return found


def megabytes(process: int) -> float:
    time.sleep(3)  # until what ran has ended
    return psutil.Process(process).memory_info().rss / 1e6


@pytest.mark.slow
@pytest.mark.fault(
    "requests of 64 visitors at once", "answered, or refused in one sentence; none is lost or gets status 500"
)
def test_a_crowd_with_hostile_uploads_is_served_in_bounded_memory(published_models, tmp_path, record_property, capsys):
    files = [(name, content) for name, content, _ in corpus()]
    models = ",".join(map(str, sorted(published_models.iterdir())))
    with running_space(tmp_path / "cache", HF_VAE_MODELS=models, PYTHONPATH=str(REPOSITORY)) as (address, process):
        asyncio.run(crowd(address, WARM_UP_SECONDS, 0, files))
        before = megabytes(process.pid)
        found = asyncio.run(crowd(address, SECONDS, CROWD, files))
        after = megabytes(process.pid)
    with capsys.disabled():
        print(f"\n{CROWD} visitors, {found.report()}; {before:.0f} MB after warm-up, {after:.0f} MB in the end")
    record_property("tried", found.outcomes.total())
    assert not found.wrong
    assert not found.lost
    assert set(found.outcomes) == {"given", "refused"}  # nobody found the queue full
    assert after < 1.05 * before


@pytest.mark.slow
@pytest.mark.fault("calls to a full queue", "answered, or refused at once because the queue is full")
def test_calls_beyond_the_queue_are_told_so_and_the_others_are_answered(published_models, tmp_path, record_property):
    num_calls = 100

    async def all_at_once(address: str) -> list[Answer]:
        async with httpx.AsyncClient(base_url=address, timeout=PATIENCE, limits=NO_LIMITS) as client:
            return await asyncio.gather(
                *(call(client, "sample_rows", CALLS["sample_rows"](None)) for _ in range(num_calls))
            )

    models = ",".join(map(str, sorted(published_models.iterdir())))
    with running_space(tmp_path / "cache", HF_VAE_MODELS=models, PYTHONPATH=str(REPOSITORY)) as (address, _):
        kinds = Counter(answer.kind for answer in asyncio.run(all_at_once(address)))
    record_property("tried", num_calls)
    assert set(kinds) == {"given", "full"} and kinds["given"] >= 64


@pytest.mark.slow
@pytest.mark.fault("restart under load", "only requests in flight are lost; uploads and answers remain")
def test_a_restart_under_load_loses_only_what_was_in_flight(published_models, tmp_path, record_property, capsys):
    models = ",".join(map(str, sorted(published_models.iterdir())))
    environment = {"HF_VAE_MODELS": models, "PYTHONPATH": str(REPOSITORY)}
    found, drawn, is_restarted = Requests(), [], asyncio.Event()

    async def insist(client: httpx.AsyncClient, number: int) -> None:
        picture = await upload(client, "a.png", encoded(draw_picture(number), "png"))
        left = 3  # after the restart
        for endpoint in itertools.cycle([*list(CALLS)[number % len(CALLS) :], *list(CALLS)[: number % len(CALLS)]]):
            started, is_after = time.monotonic(), is_restarted.is_set()
            try:
                answer = await call(client, endpoint, CALLS[endpoint](picture))
            except httpx.TransportError:  # nobody there to take it
                await asyncio.sleep(0.2)
                continue
            found.count("given", answer, started)
            if endpoint == "sample" and answer.kind == "given":
                drawn.append(answer.said[0][0]["image"]["path"])
            left -= is_after
            if not left:
                return

    async def restart_meanwhile() -> float:
        with ExitStack() as spaces:
            address, process = spaces.enter_context(running_space(tmp_path / "cache", **environment))
            async with httpx.AsyncClient(base_url=address, timeout=PATIENCE, limits=NO_LIMITS) as client:
                visitors = [asyncio.create_task(insist(client, number)) for number in range(CROWD)]
                while len(found.seconds) < CROWD:
                    await asyncio.sleep(0.1)
                killed = time.monotonic()
                process.kill()
                again = running_space(
                    tmp_path / "cache", **environment, GRADIO_SERVER_PORT=address[:-1].split(":")[-1]
                )
                await asyncio.to_thread(spaces.enter_context, again)
                is_restarted.set()
                await asyncio.gather(*visitors)
                assert (await client.get(f"gradio_api/file={drawn[0]}")).status_code == 200  # from before
        return killed

    killed = asyncio.run(restart_meanwhile())
    with capsys.disabled():
        print(f"\nA restart with {CROWD} visitors, {found.report()}")
    record_property("tried", found.outcomes.total())
    assert not found.wrong
    assert set(found.outcomes) <= {"given", "lost"}
    assert 0 < found.outcomes["lost"] <= CROWD and max(started for started, _ in found.lost) < killed
