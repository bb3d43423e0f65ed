"""Edited code is live at the next request, also after a broken edit."""

import json
from collections.abc import Iterator

import pytest

from local.gateway import http_api
from local.http_server import serving
from local.workers import Workers
from tests.local.conftest import Background, Project, Site

HANDLER = """
    import os
    from greeting import WORD

    def handler(event, context):
        return {"said": WORD, "pid": os.getpid()}
"""


@pytest.fixture
def site(background: Background, project: Project) -> Iterator[Site]:
    layer = project.folder / "layer"
    layer.mkdir(exist_ok=True)
    (layer / "greeting.py").write_text('WORD = "hello"\n')
    if not (project.folder / "Greet").exists():
        project.layer("Shared", "layer")
        project.function("Greet", HANDLER, "GET /greet", Layers=[{"Ref": "Shared"}])
    functions = project.template().functions
    workers = Workers(functions, {})
    yield Site(background.enter(serving(http_api(functions, workers, seconds=300))))
    background.run(workers.stop())


def test_the_same_code_stays_in_the_same_process(site: Site) -> None:
    assert site.get("/greet").json == site.get("/greet").json


def test_an_edit_of_the_layer_is_live_at_the_next_request(site: Site, project: Project) -> None:
    assert site.get("/greet").json["said"] == "hello"

    (project.folder / "layer" / "greeting.py").write_text('WORD = "good morning"\n')

    assert site.get("/greet").json["said"] == "good morning"


def test_a_broken_edit_answers_500_shows_the_traceback_and_recovers(
    site: Site, project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    handler = project.folder / "Greet" / "app.py"
    sound = handler.read_text()
    assert site.get("/greet").status == 200

    handler.write_text(sound + "\nthis is no Python\n")
    broken = site.get("/greet")
    handler.write_text(sound)
    mended = site.get("/greet")

    assert (broken.status, json.loads(broken.body)) == (500, {"message": "Internal Server Error"})
    assert "SyntaxError" in capfd.readouterr().err
    assert mended.json["said"] == "hello"
