"""The Space's endpoints as a stranger calls them: what is not as documented is refused in one sentence that names it,
and nothing is read, fetched or allocated for it."""

import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, NamedTuple

import httpx
import pytest
from conftest import REPOSITORY, draw_picture
from gradio_client import Client
from gradio_client.exceptions import AppError
from upload_corpus import encoded


pytestmark = pytest.mark.fault(
    "calls, paths and addresses to the API", "refused by name; nothing is read, fetched or allocated"
)

MEGABYTES = 64  # that a process may grow by in a test, with all that Gradio keeps of hundreds of calls
AT_ONCE = 40  # fewer than may wait

CHOICES = [
    None,
    5,
    True,
    [],
    {},
    "",
    "unknown",
    "../../etc/passwd",
    "/etc/passwd",
    "http://169.254.169.254/",
    "x" * 10**5,
]
NUMBERS = [None, "many", "7", True, [], {"value": 1}, -3.5, 1e10, 10**400, -(10**400), float("nan"), float("inf")]
WHOLE_NUMBERS = [*NUMBERS, 4.5]
MODELS = [
    None,
    5,
    {"a": 1},
    [],
    [None],
    ["faces-vae"] * 5,
    ["../secrets"],
    ["faces-vae", "/etc/passwd"],
    ["x"] * 10**4,
]
META = {"meta": {"_type": "gradio.FileData"}}
KINDS = {"models": MODELS, "temperature": NUMBERS, "guidance": NUMBERS[1:], "rest_temperature": NUMBERS[1:]}
KINDS |= dict.fromkeys(["model", "data_set", "cut", "path", "file_format", "prior"], CHOICES)
KINDS |= dict.fromkeys(["count", "seed", "image", "start_seed", "end_seed", "frames", "speed"], WHOLE_NUMBERS)
SHIFTS = [f"component_{each}" for each in range(1, 11)] + [f"label_{each}" for each in range(1, 5)]
KINDS |= dict.fromkeys(SHIFTS, NUMBERS)
SAMPLED = {"model": "faces-vae", "seed": 0, "temperature": 1, "prior": "own"}


class Space(NamedTuple):
    """A running Space: who asks it, where it answers, its process, its uploads, a picture in them, the parameters of
    its endpoints and the numbers of its events, a server that only it could be sent to, and what that was asked."""

    client: httpx.Client
    address: str
    process: int
    cache: Path
    upload: dict
    parameters: dict[str, list[str]]
    numbers: dict[str, int]
    trap: str
    trapped: list[str]

    def arguments(self, endpoint: str) -> dict[str, Any]:
        """What an endpoint takes."""
        picture = {"picture": None if endpoint in ("latent_pca", "edit", "pca_sweep") else self.upload}
        morph = {"models": ["faces-vae"], "start": None, "end": None, "start_seed": 0, "end_seed": 1, "path": "lerp"}
        others = {"count": 1, "data_set": "faces", "cut": "face", "frames": 4, "speed": 16, "file_format": "webp"}
        others |= {"labels": "", "image": 1, "guidance": None, "rest_temperature": None, "sliders": "component 1=2"}
        values = SAMPLED | picture | morph | others | dict.fromkeys(SHIFTS, 0)
        return {name: values[name] for name in self.parameters[endpoint]}

    def post(self, path: str, body: Any) -> httpx.Response:
        """Posts what `json` writes, also NaN."""
        content = body if isinstance(body, bytes) else json.dumps(body)
        return self.client.post(f"gradio_api/{path}", content=content, headers=JSON)


JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def trap() -> Iterator[tuple[str, list[str]]]:
    """A web server on this machine that nobody should ask, and what it was asked."""
    asked = []

    class Trap(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802, as it is called
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Trap)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", asked
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def space(shared_space, trap) -> Iterator[Space]:
    address, process, cache = shared_space
    with httpx.Client(base_url=address, timeout=60) as client:
        (path,) = client.post("gradio_api/upload", files={"files": ("a.png", encoded(draw_picture(1), "png"))}).json()
        info = client.get("gradio_api/info").json()["named_endpoints"]
        parameters = {name[1:]: [each["parameter_name"] for each in info[name]["parameters"]] for name in info}
        events = client.get("config").json()["dependencies"]
        numbers = {event["api_name"]: event["id"] for event in events}
        space = Space(client, address, process.pid, cache, {"path": path} | META, parameters, numbers, *trap)
        for endpoint in parameters:  # loads the models
            assert isinstance(answer(space, endpoint, space.arguments(endpoint)), list)
        yield space


@pytest.fixture(autouse=True)
def nothing_is_allocated_or_fetched(space: Space) -> Iterator[None]:
    before = peak(space)
    yield
    assert peak(space) - before < MEGABYTES
    assert not space.trapped


def peak(space: Space) -> float:
    """The most memory that the process ever had, in megabytes."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{space.process}/status").read_text())[1]) * 1024 / 1e6


def answer(space: Space, endpoint: str, arguments: dict | list) -> list | str:
    return next(answers(space, [(endpoint, arguments)]))


def answers(space: Space, calls: list[tuple[str, dict | list]]) -> Iterator[list | str]:
    """What is given for calls, or the sentences that they are refused with."""
    for first in range(0, len(calls), AT_ONCE):
        places = []
        for endpoint, values in calls[first : first + AT_ONCE]:
            posted = space.post(
                f"call/{endpoint}", {"data": list(values.values()) if isinstance(values, dict) else values}
            )
            assert posted.status_code == 200, posted.text
            places.append(f"gradio_api/call/{endpoint}/{posted.json()['event_id']}")
        for place in places:
            yield outcome(space.client.get(place).text)


def outcome(stream: str) -> list | str:
    event, data = re.findall(r"event: (\w+)\ndata: (.*)", stream)[-1]
    assert event in ("complete", "error")
    return json.loads(data) if event == "complete" else json.loads(data)["error"]


def queued(space: Space, endpoint: str, arguments: dict) -> list | str:
    """The same by the number of an event, as the page calls it."""
    session = f"session-{id(arguments)}"
    body = {"data": list(arguments.values()), "fn_index": space.numbers[endpoint], "session_hash": session}
    assert space.post("queue/join", body).status_code == 200
    with space.client.stream("GET", f"gradio_api/queue/data?session_hash={session}") as lines:
        message = next(line for line in lines.iter_lines() if "process_completed" in line)
    output = json.loads(message.removeprefix("data: "))["output"]
    return output["data"] if "data" in output else output["error"]


def assert_one_sentence(space: Space, said: list | str | None) -> None:
    assert isinstance(said, str) and re.fullmatch(r"[A-Z][^\n]{10,400}\.", said), said
    assert "Traceback" not in said and str(REPOSITORY) not in said and str(space.cache) not in said


def hostile_calls(space: Space) -> Iterator[tuple[str, str, dict, Any]]:
    """Every endpoint, with each of its parameters in turn not as it should be: its name, all arguments, the value."""
    for endpoint, parameters in space.parameters.items():
        for parameter in parameters:
            for value in KINDS.get(parameter, ()):
                yield endpoint, parameter, space.arguments(endpoint) | {parameter: value}, value


@pytest.mark.parametrize("endpoint", ["sample", "sample_rows", "latent_pca", "pca_sweep"])
def test_labels_that_are_not_text_or_not_there_are_refused(space: Space, endpoint: str) -> None:
    for value in CHOICES:
        if value not in (None, ""):
            assert_one_sentence(space, answer(space, endpoint, space.arguments(endpoint) | {"labels": value}))


SLIDERS = [None, 5, [], {"a": 1}, "smile", "=", "nothing=1", "component 1=99", "component 1=nan", "x=1," * 10**4]


@pytest.mark.parametrize("sliders", SLIDERS, ids=short_repr)
def test_sliders_that_are_not_text_or_not_there_are_refused(space: Space, sliders: Any) -> None:
    assert_one_sentence(space, answer(space, "edit", space.arguments("edit") | {"sliders": sliders}))


def assert_refused_by_name(space: Space, said: str, parameter: str, value: Any) -> None:
    assert_one_sentence(space, said)
    if parameter != "models":
        assert re.search(rf" is {re.escape(short_repr(value))}; it must be (one of: |a (whole )?number from )", said)
    elif not isinstance(value, list):
        assert f"are {short_repr(value)}; they must be a list" in said
    else:
        wrong = next((name for name in value if name != "faces-vae"), None)
        count = f"Choose 1 to 4 models; {len(value)} are chosen"
        assert (count if not 1 <= len(value) <= 4 else f"model is {short_repr(wrong)}; it must be one of") in said


def test_values_that_an_endpoint_does_not_take_are_refused_by_name(space, record_property):
    calls = list(hostile_calls(space))
    record_property("tried", len(calls))
    assert len(calls) > 400
    found = answers(space, [(endpoint, arguments) for endpoint, _, arguments, _ in calls])
    for (endpoint, parameter, _, value), said in zip(calls, found, strict=True):
        try:
            assert_refused_by_name(space, said, parameter, value)
        except AssertionError as error:
            raise AssertionError(f"/{endpoint}, {parameter}={short_repr(value)}: {error}") from None


def some(space: Space, count: int) -> list[tuple[str, str, dict, Any]]:
    """Of the hostile values of each parameter, `count`."""
    seen: dict[tuple[str, str], int] = {}
    chosen = []
    for call in hostile_calls(space):
        seen[call[:2]] = seen.get(call[:2], -1) + 1
        # the client cannot send a NaN, and takes `None` for what is not given
        if call[3] is not None and call[3] == call[3] and call[3] not in (float("inf"),) and seen[call[:2]] <= count:
            chosen.append(call)
    return chosen


@pytest.mark.parametrize("count", [1, pytest.param(99, marks=pytest.mark.slow)], ids=["one of each", "all"])
def test_the_client_and_the_queue_are_refused_in_the_same_words(count, space, record_property):
    client = Client(space.address, verbose=False, download_files=False)
    calls = some(space, count)
    record_property("tried", 2 * len(calls))
    for endpoint, parameter, arguments, value in calls:
        assert_refused_by_name(space, queued(space, endpoint, arguments), parameter, value)
        with pytest.raises(AppError) as refused:
            client.predict(**arguments, api_name=f"/{endpoint}")
        assert_refused_by_name(space, str(refused.value), parameter, value)


def test_too_few_and_too_many_values_are_counted(space, record_property):
    tried = 0
    for endpoint, parameters in space.parameters.items():
        values = list(space.arguments(endpoint).values())
        numbers = [*range(len(values)), len(values) + 1, 1000]
        wrong = [(endpoint, (values * 1000)[:number]) for number in numbers]
        for number, said in zip(numbers, answers(space, wrong), strict=True):
            assert_one_sentence(space, said)
            assert f"needs {len(parameters)} values; {number} were sent" in said
        tried += len(wrong)
    record_property("tried", tried)


UNKNOWN = ["nothing", "draw", "sample%00", "..%2fsample", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "x" * 5000]


def test_endpoints_that_there_are_not_are_named(space, record_property):
    for name in UNKNOWN:
        for way in ("call", "run", "api", "call/v2"):
            refused = space.post(f"{way}/{name}", {"data": []})
            # a name with a slash is another address
            assert refused.status_code in (404, 405) and "Traceback" not in refused.text
            assert refused.status_code == 405 or re.search("There is no endpoint '|Not Found", refused.text)
    for number in (-1, 10**6, 10**30):
        refused = space.post("queue/join", {"data": [], "fn_index": number, "session_hash": "x"})
        assert refused.status_code == 404 and f"no endpoint {short_repr(number)};" in refused.text
    refused = space.post("call/v2/sample", {"model": "faces-vae", "secret": 1})
    assert refused.status_code == 422 and "no such parameters" in refused.text
    record_property("tried", 4 * len(UNKNOWN) + 4)


def test_nobody_goes_past_the_queue(space, record_property):
    for endpoint in space.parameters:
        refused = space.post(f"run/{endpoint}", {"data": list(space.arguments(endpoint).values())})
        assert refused.status_code == 404 and "join the queue" in refused.text
    record_property("tried", len(space.parameters))


NO_CALLS = {
    "nothing": (b"", 422),
    "no JSON": (b"[", 422),
    "no text": (b"\xff\xfe", 422),
    "null": (b"null", 422),
    "no data": (b"{}", 422),
    "data that is no list": (b'{"data": "x"}', 422),
    "a session that is no text": (b'{"data": [], "session_hash": 5}', 422),
    "100,000 lists in each other": (b'{"data": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", 400),
    "200 MB": (b'{"data": ["' + b"x" * 200_000_000 + b'"]}', 413),
    "a picture of 30 MB in an address": (b'{"data": [{"path": "data:image/png;base64,' + b"A" * 30_000_000, 413),
}


@pytest.mark.parametrize("kind", NO_CALLS)
def test_what_is_no_call_is_refused(kind, space):
    body, status = NO_CALLS[kind]
    refused = space.post("call/crop_face", body)
    assert refused.status_code == status
    assert refused.text == "Content Too Large" if status == 413 else "detail" in refused.json()
    assert "Traceback" not in refused.text and str(REPOSITORY) not in refused.text


def test_a_call_that_does_not_say_how_long_it_is_ends_at_the_limit(space):
    parts = (b"x" * 10**5 for _ in range(100))
    refused = space.client.post("gradio_api/call/sample", content=parts, headers=JSON)
    assert refused.status_code == 413 and refused.json()["detail"] == "Content Too Large"


def test_uploads_that_are_too_large_or_too_many_are_refused(space):
    for size in (11 * 2**20, 101 * 2**20):
        refused = space.client.post("gradio_api/upload", files={"files": ("a.png", bytes(size))})
        assert refused.status_code == 413 and str(space.cache) not in refused.text
    refused = space.client.post("gradio_api/upload", files=[("files", ("a.png", b""))] * 1001)
    assert refused.status_code == 400 and "Too many files" in refused.text
    assert not [path for path in space.cache.rglob("*") if path.is_file() and path.stat().st_size > 10 * 2**20]


def foreign_files(space: Space) -> dict[str, Any]:
    """Pictures as they are not sent: files of the server, addresses, and no files at all."""
    beside = space.cache.parent / "space.log"
    (space.cache / "link.png").unlink(missing_ok=True)
    (space.cache / "link.png").symlink_to(beside)
    paths = {
        "absolute": "/etc/passwd",
        "of the process": "/proc/self/environ",
        "device": "/dev/zero",
        "of the Space": str(REPOSITORY / "space" / "app.py"),
        "relative": "app.py",
        "of the home": "~/.bashrc",
        "up from the cache": f"{space.cache}/../space.log",
        "link": str(space.cache / "link.png"),
        "the cache": str(space.cache),
        "missing": str(space.cache / "missing.png"),
        "too long": f"{space.cache}/{'a' * 5000}",
        "zero byte": f"{space.cache}/a\0.png",
        "file address": "file:///etc/passwd",
        "data address": "data:image/png;base64,AAAA",
        "loopback": f"{space.trap}a.png",
        "loopback by name": space.trap.replace("127.0.0.1", "localhost"),
        "loopback as a number": space.trap.replace("127.0.0.1", "2130706433"),
        "loopback of six": "http://[::1]/a.png",
        "metadata of a cloud": "http://169.254.169.254/latest/meta-data/",
        "other scheme": "gopher://127.0.0.1:70/",
        "internet": "https://example.com/a.png",
    }
    files: dict[str, Any] = {name: {"path": path} for name, path in paths.items()}
    files |= {f"{name}, as Gradio sends it": {"path": path} | META for name, path in paths.items()}
    files |= {f"{name}, as an address": {"path": "x", "url": path} | META for name, path in paths.items()}
    files |= {f"{name}, as text": path for name, path in paths.items()}
    files |= {
        "inside of another": space.upload | {"more": {"path": f"{space.trap}b.png"} | META},
        "a stream": {"path": f"{space.trap}s.m3u8", "is_stream": True} | META,
        "no path": META,
        "number for a path": {"path": 5},
        "dict for a path": {"path": {"path": "/etc/passwd"} | META},
        "number": 5,
        "truth": True,
        "list": [space.upload],
    }
    return files


@pytest.mark.parametrize("each", [8, pytest.param(1, marks=pytest.mark.slow)], ids=["every eighth", "all"])
def test_files_that_were_not_uploaded_are_neither_opened_nor_fetched(each, space, record_property):
    files = list(foreign_files(space).values())
    calls = [("crop_face", space.arguments("crop_face") | {"picture": file}) for file in files]
    calls += [
        (endpoint, space.arguments(endpoint) | {parameter: file})
        for endpoint, parameters in space.parameters.items()
        for parameter in {"picture", "start", "end"} & set(parameters)
        for file in files[::each]
    ]
    # a file in the place of something else is none either
    calls += [("sample", space.arguments("sample") | {"count": file}) for file in files if isinstance(file, dict)]
    record_property("tried", len(calls))
    for (endpoint, arguments), said in zip(calls, answers(space, calls), strict=True):
        assert isinstance(said, str), (endpoint, arguments)
        # a caller's own words may come back
        assert_one_sentence(space, said.replace(str(space.cache), "").replace(str(REPOSITORY), ""))
        assert re.search("was not uploaded|must be|is missing", said), (endpoint, arguments)


def test_events_of_the_page_that_anybody_can_call_open_nothing_else(space, record_property):
    files = foreign_files(space).values()
    for file in files:
        arguments = {"models": ["faces-vae"], "upload": file}
        said = queued(space, "show_crop", arguments)
        assert isinstance(said, str) and re.search("was not uploaded|must be", said), file
    record_property("tried", len(files))


LEADING_NOWHERE = [
    "file=/etc/passwd",
    "file=/proc/self/environ",
    "file=..%2f..%2fetc%2fpasswd",
    "file={cache}/../space.log",
    "file={cache}/%2e%2e/space.log",
    "file={cache}/link.png",
    "file={repository}/space/app.py",
    "file=app.py",
    "file=~/.bashrc",
    "file=a%00",
    "file=" + "a" * 5000,
    "file={trap}x",
    "file=http://169.254.169.254/latest/meta-data/",
    "file=http://[::1]/",
    "file=http://0x7f000001/",
    "file=file:///etc/passwd",
    "file=ftp://127.0.0.1/x",
    "file=//127.0.0.1/x",
    "file/etc/passwd",
    "proxy={trap}",
    "proxy=http://169.254.169.254/",
    "proxy=https://someone.hf.space/",
    "custom_component/x/client/component/..%2f..%2fx",
    "stream/a/b/1/playlist.m3u8",
    "../static/%2e%2e/%2e%2e/routes.py",
    "../assets/%2e%2e/%2e%2e/routes.py",
    "../svelte/%2e%2e/x",
    "../monitoring",
    "../monitoring/summary",
]


@pytest.mark.parametrize("path", LEADING_NOWHERE, ids=lambda path: path[:40])
def test_addresses_lead_to_no_other_file_or_server(path, space):
    foreign_files(space)  # with the link
    path = path.format(cache=space.cache, repository=REPOSITORY, trap=space.trap)
    refused = space.client.get(f"gradio_api/{path}")
    assert 400 <= refused.status_code < 500
    assert "Traceback" not in refused.text and "root:" not in refused.text and "import gradio" not in refused.text


def test_the_page_tells_no_path_of_the_server(space):
    for page in ("", "config", "gradio_api/info", "gradio_api/openapi.json"):
        assert str(REPOSITORY) not in space.client.get(page).text


def test_the_next_visitor_is_served(space):
    for endpoint in space.parameters:
        assert isinstance(answer(space, endpoint, space.arguments(endpoint)), list)
