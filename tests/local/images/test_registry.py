"""Pulling from a real registry: by tag and digest, with a login, cut off, twice at once."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpcore
import pytest

from agentbay.local.images import registry as registry_client
from agentbay.local.images.credentials import find_credentials
from agentbay.local.images.errors import DamagedImage, ImageError, PullFailed
from agentbay.local.images.reference import chosen_name, name_of, parse_reference
from agentbay.local.images.store import Image, ImageStore
from agentbay.local.state_dir import StateDirectory
from tests.cutting import CuttingProxy
from tests.http_server import Handler, Server, serving
from tests.local.images.builds import Built, digest, member, names, tar
from tests.local.images.conftest import Registry

LAYERS = [tar(member(f"f{number}", os.urandom(400_000))) for number in range(3)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    state = StateDirectory.open(str(tmp_path / "state"))
    store = ImageStore(state, None)
    yield store
    store.close()
    state.close()


def pull(store: ImageStore, text: str, counts: list[int] | None = None) -> Image:
    counts = [] if counts is None else counts
    return registry_client.pull(parse_reference(text, ""), text, store, counts.append, counts.append)


def test_by_tag_and_digest(registry: Registry, store: ImageStore) -> None:
    """An image is pulled by its tag or its digest, and layers that are there are not transferred again."""
    built = Built(LAYERS, {"Env": ["A=1"]})
    manifest = registry.push("team/app", "1", built)
    counts: list[int] = []
    image = pull(store, f"{registry.host}/team/app:1", counts)
    assert (image.id, image.digest, image.config.env) == (digest(built.config), manifest, {"A": "1"})
    assert counts[0] == sum(map(len, built.layers))
    assert [names(Path(layer)) for layer in store.layer_paths(image.layers)] == [["f0"], ["f1"], ["f2"]]
    assert not [name for name in names(store.blobs) if not name.endswith(".lock")]
    again = pull(store, f"{registry.host}/team/app@{manifest}", counts)
    assert again.id == image.id
    assert len(again.names) == 2


def test_refusals_name_what_is_missing(registry: Registry, store: ImageStore) -> None:
    """A tag or a host that is not there, and a digest that is another image's, are errors that name them."""
    with pytest.raises(PullFailed, match=f"has no image {registry.host}/absent:1"):
        pull(store, f"{registry.host}/absent:1")
    with pytest.raises(PullFailed, match="cannot be reached"):
        pull(store, "127.0.0.1:1/app:1")
    with pytest.raises(PullFailed, match="has no image"):
        pull(store, f"{registry.host}/team/app@sha256:{'0' * 64}")
    assert store.images() == []


def test_cut_off_transfers_go_on(registry: Registry, store: ImageStore) -> None:
    """A transfer that is cut off again and again goes on where it ended."""
    registry.push("cut", "1", Built(LAYERS))
    with CuttingProxy(registry.port, [150_000 * number for number in range(1, 8)]) as proxy:
        counts: list[int] = []
        image = pull(store, f"127.0.0.1:{proxy.port}/cut:1", counts)
        assert proxy.cuts >= 6
        # each byte of a layer is transferred, and unpacked, once
        assert sum(counts[1:]) < 2.2 * counts[0]
        assert len(image.layers) == 3


def test_a_later_pull_goes_on(registry: Registry, store: ImageStore) -> None:
    """What an aborted pull has of a layer is not transferred again."""
    registry.push("later", "1", Built(LAYERS[:1]))

    class Enough(Exception):
        pass

    def stop(count: int) -> None:
        if count > 0 and sum(path.stat().st_size for path in store.blobs.iterdir()) > 100_000:
            raise Enough

    reference = parse_reference(f"{registry.host}/later:1", "")
    with pytest.raises(Enough):
        registry_client.pull(reference, "a:1", store, stop, lambda _: None)
    (partial,) = [path for path in store.blobs.iterdir() if not path.name.endswith(".lock")]
    had = partial.stat().st_size
    assert 0 < had < 400_000
    counts: list[int] = []
    registry_client.pull(reference, "a:1", store, counts.append, lambda _: None)
    assert sum(counts) < 2 * 400_500 - had + 1000


def test_pruning_removes_partial_downloads(registry: Registry, store: ImageStore) -> None:
    """Pruning removes what an aborted pull has left, and nothing of a pull that is under way."""
    registry.push("partial", "1", Built(LAYERS[:1]))
    kept: list[str] = []

    class Enough(Exception):
        pass

    def stop(count: int) -> None:
        if count > 0:
            store.prune()
            kept.extend(path.name for path in store.blobs.iterdir())
            raise Enough

    with pytest.raises(Enough):
        registry_client.pull(parse_reference(f"{registry.host}/partial:1", ""), "a:1", store, stop, lambda _: None)
    assert len(kept) == 2  # the file and its lock
    store.prune()
    assert list(store.blobs.iterdir()) == []
    pull(store, f"{registry.host}/partial:1")
    assert list(store.blobs.iterdir()) == []


def test_two_pulls_at_once(registry: Registry, store: ImageStore) -> None:
    """Two pulls of one image transfer each layer once, and both succeed."""
    registry.push("twice", "1", Built(LAYERS))
    found: list[Image] = []
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(pull(store, f"{registry.host}/twice:1", counts))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({image.id for image in found}) == 1
    assert len(found) == 4
    assert len(names(store.blobs.parent / "layers")) == 3


class Liar(Handler):
    """A registry whose answers a test chooses by path."""

    answers: dict[str, bytes]

    def do_GET(self) -> None:
        body = self.answers.get(self.path)
        self.answer(404 if body is None else 200, body or b"")


@pytest.fixture
def liar() -> Iterator[tuple[str, dict[str, bytes]]]:
    handler = type("Handler", (Liar,), {"answers": {}})
    with serving(Server(handler)) as server:
        yield server.host, handler.answers


def test_lying_registries(liar: tuple[str, dict[str, bytes]], store: ImageStore) -> None:
    """Wrong digests and sizes, and manifests that are none, are refused, and nothing is left."""
    host, answers = liar
    built = Built(LAYERS[:1])
    manifest = built.manifest()
    layer = manifest["layers"][0]
    for name, blob in built.blobs().items():
        answers[f"/v2/a/blobs/{name}"] = blob

    def attempt(reason: str, error: type[ImageError] = DamagedImage) -> None:
        answers["/v2/a/manifests/1"] = json.dumps(manifest).encode()
        with pytest.raises(error, match=reason):
            pull(store, f"{host}/a:1")

    answers[f"/v2/a/manifests/sha256:{'1' * 64}"] = b"{}"
    with pytest.raises(DamagedImage, match="sends a manifest with the digest"):
        pull(store, f"{host}/a@sha256:{'1' * 64}")
    answers[f"/v2/a/blobs/{layer['digest']}"] = built.layers[0][:-1] + b"?"
    attempt("sends a layer with the digest")
    answers[f"/v2/a/blobs/{layer['digest']}"] = built.layers[0] + b"more"
    attempt("sends more than the")
    layer["size"] = 1 << 50
    attempt("are allowed", ImageError)
    layer["size"] = -1
    attempt("without a size")
    layer["digest"] = "sha256:../../../etc/passwd"
    attempt("not SHA-256")
    manifest["layers"] = "none"
    attempt("does not list its layers")
    assert store.images() == []
    assert names(store.blobs.parent / "layers") == []


Answer = Callable[[Handler], None]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Start servers that answer as a function says, and return their hosts."""
    with ExitStack() as running:

        def start(answer: Answer) -> str:
            handler = type("Answering", (Handler,), {"do_GET": answer})
            return running.enter_context(serving(Server(handler))).host

        yield start


def _refer(status: int, header: str, value: str) -> Answer:
    def answer(request: Handler) -> None:
        request.answer(status, headers={header: value})

    return answer


def _resolve_to(monkeypatch: pytest.MonkeyPatch, addresses: dict[str, str]) -> None:
    """Give names other addresses, and let connections to these arrive on the loopback, as on another network."""
    resolve, connect = socket.getaddrinfo, httpcore.SyncBackend.connect_tcp

    def getaddrinfo(host: str, *args: Any, **kwargs: Any) -> Any:
        return resolve(addresses.get(host, host), *args, **kwargs)

    def connect_tcp(self: httpcore.SyncBackend, host: str, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        return connect(self, "127.0.0.1" if host in addresses.values() else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect_tcp)


@pytest.mark.parametrize("way", ["redirect", "login"])
@pytest.mark.parametrize("address", ["93.184.216.34", "10.0.0.9"])
def test_registries_lead_to_nothing_nearer(
    serve: Callable[[Answer], str], store: ImageStore, monkeypatch: pytest.MonkeyPatch, way: str, address: str
) -> None:
    """A registry of the internet, or of another machine, leads the service to no server of its machine (SSRF)."""
    reached: list[str] = []

    def victim(request: Handler) -> None:
        reached.append(request.path)
        _refer(404, "X", "x")(request)

    target = serve(victim)
    header = ("Location", f"http://{target}/admin"), ("WWW-Authenticate", f'Bearer realm="http://{target}/admin"')
    host = serve(_refer(307, *header[0]) if way == "redirect" else _refer(401, *header[1]))
    with pytest.raises(PullFailed):  # the same registry on the loopback may lead there
        pull(store, f"{host}/a:1")
    assert reached.pop().startswith("/admin")
    _resolve_to(monkeypatch, {"localhost": address})
    with pytest.raises(PullFailed, match=r"it leads to 127\.0\.0\.1, a server of this machine"):
        pull(store, f"{host.replace('127.0.0.1', 'localhost')}/a:1")
    assert not reached


def test_a_registry_that_changes_its_address(
    serve: Callable[[Answer], str], store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that means the internet first, and this machine next, leads nowhere (DNS rebinding)."""
    reached: list[str] = []

    def answer(request: Handler) -> None:
        reached.append(request.path)
        addresses["localhost"] = "127.0.0.1"
        _refer(307, "Location", "http://localhost:1/admin")(request)

    addresses = {"localhost": "93.184.216.34"}
    host = serve(answer)
    _resolve_to(monkeypatch, addresses)
    with pytest.raises(PullFailed, match="it leads to localhost, a server of this machine"):
        pull(store, f"{host.replace('127.0.0.1', 'localhost')}/a:1")
    assert reached == ["/v2/a/manifests/1"]


def test_endless_logins_take_no_memory(serve: Callable[[Answer], str], store: ImageStore) -> None:
    """The answer of a login is read up to its bound, and not unpacked."""
    sent = [0]

    def answer(request: Handler) -> None:
        if not request.path.startswith("/token"):
            _refer(401, "WWW-Authenticate", f'Bearer realm="http://{request.headers["Host"]}/token"')(request)
            return
        request.send_response(200)
        request.send_header("Content-Encoding", "gzip")
        request.end_headers()
        with suppress(OSError):
            while sent[0] < 200 << 20:
                request.wfile.write(bytes(1 << 20))
                sent[0] += 1 << 20

    with pytest.raises(DamagedImage, match="document of more than"):
        pull(store, f"{serve(answer)}/a:1")
    assert sent[0] < 50 << 20


def test_login(tmp_path: Path, store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The credentials that Docker and Podman keep are used, and shown nowhere."""
    pytest.importorskip("crypt", reason="bcrypt comes from the C library, through a module of Python up to 3.12")
    import crypt

    secret = crypt.crypt("the-password", crypt.mksalt(crypt.METHOD_BLOWFISH))
    (tmp_path / "htpasswd").write_text(f"somebody:{secret}\n")
    with Registry(tmp_path, f"auth: {{htpasswd: {{realm: test, path: {tmp_path / 'htpasswd'}}}}}") as made:
        made.http.auth = ("somebody", "the-password")
        made.push("private", "1", Built(LAYERS[:1]))
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
        with pytest.raises(PullFailed, match="log in there with docker login or podman login") as refused:
            pull(store, f"{made.host}/private:1")
        assert "the-password" not in str(refused.value)
        login = base64.b64encode(b"somebody:the-password").decode()
        (tmp_path / "auth.json").write_text(json.dumps({"auths": {made.host: {"auth": login}}}))
        assert pull(store, f"{made.host}/private:1").names == [f"{made.host}/private:1"]
        assert "the-password" not in repr(find_credentials(made.host))


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("host.example/a", "host.example/a:latest"),
        ("host.example:5000/team/a:1.2", "host.example:5000/team/a:1.2"),
        ("localhost/a", "localhost/a:latest"),
        ("a", "default.example/library/a:latest"),
        ("team/a:1", "default.example/library/team/a:1"),
        (f"h.example/a:1@sha256:{'a' * 64}", f"h.example/a@sha256:{'a' * 64}"),
        ("[::1]:5000/a", "[::1]:5000/a:latest"),
    ],
)
def test_references(text: str, meaning: str) -> None:
    """References are read as Docker reads them, with a registry of one's own for those without a host."""
    assert str(parse_reference(text, "default.example/library")) == meaning


MALFORMED = ("", "A/B", "h.example/", "h.example/a:", "h.example/a@sha256:1", "h.ex ample/a", "a b", "../a")


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_references(text: str) -> None:
    """What is no reference is refused by name."""
    with pytest.raises(ImageError, match="names no image"):
        parse_reference(text, "default.example")


def test_mirror_and_default() -> None:
    """A mirror is asked for all images; without a default registry, a bare name is refused with the way out."""
    assert str(parse_reference("h.example/a:1", "", "m.example/all")) == "m.example/all/h.example/a:1"
    with pytest.raises(ImageError, match="--image-registry"):
        parse_reference("debian:12", "")
    assert [name_of(text) for text in ("a", "a:1", "h:5/a")] == ["a:latest", "a:1", "h:5/a:latest"]
    with pytest.raises(ImageError, match="is no name for an image"):
        name_of("-x")


def test_digests_are_not_chosen() -> None:
    """A name with a digest is that of what a registry has sent; nobody can give it to something else."""
    assert chosen_name("a") == "a:latest"
    with pytest.raises(ImageError, match="names a digest"):
        chosen_name(f"a@sha256:{'0' * 64}")
