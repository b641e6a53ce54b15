"""The calls whose golden pairs are those of images."""

from __future__ import annotations

from typing import Any

from agentbay._wire import images
from agentbay._wire.schema import Action
from agentbay._wire.sessions import SessionConnection

SESSION = "session-04bdwexample00001"

_IMAGE = images.ImageData(
    image_id="sha256:0a1b",
    names=["debian:12"],
    digest="sha256:2c3d",
    size=1234,
    layers=2,
    left_out=1,
    created=1795937016.5,
    source="registry.example/debian:12",
    architecture="amd64",
    env={"PATH": "/usr/bin"},
    workdir="/app",
    user="app",
    entrypoint=["/entry"],
    command=["run"],
    labels={"a": "b"},
    shell="/bin/sh",
    python="/usr/bin/python3",
)
IMAGE_REQUESTS: dict[str, dict[str, Action[Any]]] = {
    "PullImage": {
        "documented": images.PullImage(reference="registry.example/debian:12"),
        "named": images.PullImage(reference="registry.example/team/app@sha256:2c3d", name="app:1"),
    },
    "ImportImage": {"documented": images.ImportImage(name="debian:12", source="debian.tar")},
    "BuildImage": {
        "documented": images.BuildImage(dockerfile="FROM debian:12\nRUN true\n", name="task:1"),
        "confined": images.BuildImage(
            dockerfile="FROM debian:12\n", arguments={"A": "b"}, policy_id="proxy", network=["pypi.org"], target="base"
        ),
    },
    "DescribeImageJob": {
        "documented": images.DescribeImageJob(job_id="img-1"),
        "build": images.DescribeImageJob(job_id="img-1", output_from=4),
    },
    "CancelImageBuild": {"documented": images.CancelImageBuild(job_id="img-1")},
    "ListImages": {"documented": images.ListImages()},
    "GetImage": {"documented": images.GetImage(image="debian:12")},
    "RemoveImage": {"documented": images.RemoveImage(image="debian:12")},
    "PruneImages": {"documented": images.PruneImages()},
    "SnapshotSession": {"documented": images.SnapshotSession(session_id=SESSION, name="done:1")},
    "ForkSession": {"documented": images.ForkSession(session_id=SESSION, count=2)},
}
IMAGE_DATA: dict[str, Any] = {
    "PullImage": images.ImageJobData(job_id="img-1", state="running"),
    "ImportImage": images.ImageJobData(
        job_id="img-1", state="running", upload_url="http://127.0.0.1:8080/image-uploads/TOKEN"
    ),
    "BuildImage": images.ImageJobData(
        job_id="img-1", state="running", upload_url="http://127.0.0.1:8080/image-uploads/TOKEN"
    ),
    "DescribeImageJob": images.ImageJobData(
        job_id="img-1", state="done", done=5, total=5, image=_IMAGE, output="text", output_end=8
    ),
    "ListImages": [_IMAGE],
    "GetImage": _IMAGE,
    "RemoveImage": _IMAGE,
    "PruneImages": [_IMAGE],
    "SnapshotSession": images.ImageJobData(job_id="img-1", state="running"),
    "ForkSession": [
        SessionConnection(session_id="session-04bdwexample00002", image_id="debian:12", token="TOKEN"),
    ],
}
