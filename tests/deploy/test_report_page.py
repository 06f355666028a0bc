"""The report as a page, in a real browser: Debian's chromium without a window."""

from __future__ import annotations

import html.parser
import shutil
import subprocess
from collections import Counter

import pytest

import chatpool
from chatpool.testing import Delay, Error

pytestmark = pytest.mark.deploy

BROWSER = shutil.which("chromium") or "/usr/bin/chromium"
PLOTS = {"plot-latency", "plot-throughput", "plot-in-flight", "plot-failures", "plot-tokens"}


class Drawn(html.parser.HTMLParser):
    """Counts what was drawn inside each plot."""

    def __init__(self):
        super().__init__()
        self.plot = None
        self.shapes = Counter()
        self.texts = []
        self.sources = []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.plot = found["id"] if found.get("id") in PLOTS else self.plot
        if tag in ("path", "rect") and self.plot:
            self.shapes[self.plot] += 1
        self.sources += [found[name] for name in ("src", "href") if name in found]

    def handle_data(self, data):
        self.texts.append(data.strip())


@pytest.fixture
def page(chatpool_server, tmp_path, instant_waits):
    """A report's page, and the file it is in."""
    chatpool_server.set_script(lambda request: Error(400) if request.prompt.endswith("7") else Delay(0.01))
    chatpool_server.enqueue(*[Error(503)] * 5)
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("".join(f"row {number}\n" for number in range(200)))
    chatpool.batch.run(source, target, model="m", base_url=chatpool_server.base_url, progress=False)
    path = tmp_path / "report.html"
    path.write_text(chatpool.batch.report(target, prices=(20, 80)).html(), encoding="utf-8")
    return path


@pytest.fixture
def browse(tmp_path):
    """``browse(page, *options)`` opens a page and returns what the browser printed."""

    def open_page(path, *options):
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
        command += ["--virtual-time-budget=10000", *options, path.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    return open_page


@pytest.mark.smoke
def test_every_plot_is_drawn(page, browse):
    drawn = Drawn()
    drawn.feed(browse(page, "--dump-dom"))
    assert set(drawn.shapes) == PLOTS
    assert all(count >= 1 for count in drawn.shapes.values())
    for shown in ("180", "20", "Latency", "Throughput", "In flight, and made again", "Failures by cause", "$0.04"):
        assert shown in drawn.texts
    assert "HTTP 400 invalid_request_error" in drawn.texts


def test_it_is_one_file_that_needs_no_network(page, browse):
    drawn = Drawn()
    drawn.feed(browse(page, "--dump-dom", "--host-resolver-rules=MAP * ~NOTFOUND"))
    assert set(drawn.shapes) == PLOTS
    assert drawn.sources == []


def test_a_picture_of_it_has_the_colours_of_its_plots(page, browse, tmp_path):
    picture = tmp_path / "page.png"
    browse(page, f"--screenshot={picture}", "--window-size=1280,1500")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 40_000  # an empty page of that size has 15,000


def test_a_picture_for_a_dark_scheme_is_another_one(page, browse, tmp_path):
    pictures = []
    for number, scheme in enumerate(("light", "dark")):
        picture = tmp_path / f"{scheme}.png"
        browse(
            page,
            f"--screenshot={picture}",
            "--window-size=400,900",
            f"--blink-settings=preferredColorScheme={1 - number}",
        )
        pictures.append(picture.read_bytes())
    assert pictures[0] != pictures[1]
