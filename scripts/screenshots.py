"""Takes the pictures of what a browser shows: ``python scripts/screenshots.py`` writes docs/images/*.png.

A run against a practice server that breaks some calls gives the report page, and a table as a notebook shows it.  The
site of the examples is asked some questions.  Needs Chromium (Debian's packages ``chromium`` and ``chromium-driver``),
and the extras ``deploy`` and ``django``.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
sys.path.insert(0, str(ROOT))

import chatpool  # noqa: E402 - found by the path set above
from chatpool import ChatPool  # noqa: E402
from chatpool.testing import Answer, Delay, Error, FakeServer, Faults  # noqa: E402

ROWS = 1500
PRICES = (0.15, 0.60)
_NOTEBOOK = """<meta charset="utf-8"><style>
body {{ font: 14px/1.5 system-ui, sans-serif; margin: 16px }}
code {{ display: block; background: #f5f5f5; border: 1px solid #e0e0e0; padding: 8px 10px; margin-bottom: 10px }}
</style><code>replies = pool.map(reviews, prompt="Good or bad? {{}}".format)<br>replies</code>{table}"""


def main() -> None:
    """Take all pictures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "report.html").write_text(report_page(folder), encoding="utf-8")
        (folder / "notebook.html").write_text(_NOTEBOOK.format(table=notebook_table()), encoding="utf-8")
        shoot(folder / "report.html", IMAGES / "report.png", 1000, 1500)
        shoot(folder / "notebook.html", IMAGES / "notebook.png", 900, 470)
    shoot_site(IMAGES / "django-site.png", 1200, 900)


def report_page(folder: Path) -> str:
    """Return the report of a run with some failures."""
    rows, answers = folder / "reviews.jsonl", folder / "answers.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"review {n}"}) + "\n" for n in range(ROWS)), encoding="utf-8")
    with FakeServer(script=answer) as server:
        options: Dict[str, Any] = {"model": "gpt-4o-mini", "max_workers": 32, "temperature": 0}
        chatpool.batch.run(rows, answers, base_url=server.base_url, progress=False, **options)
    return chatpool.batch.report(answers, prices=PRICES).html()


FAULTS = Faults({503: 0.04, "reset": 0.01}, seed=1)


def answer(request: Any) -> Any:
    """Answer a review after a while; one in 250 is too long, one in 20 fails by chance."""
    dice = random.Random(request.prompt)
    fault = FAULTS.take(request)
    if fault is not None:
        return fault
    if dice.random() < 0.004:
        return Error(400, "This model's maximum context length is 8192 tokens.", code="context_length_exceeded")
    text = " ".join(["Good."] * (1 + int(dice.expovariate(0.1))))
    return Delay(0.05 + dice.expovariate(6), then=Answer(text))


def notebook_table() -> str:
    """Return what a notebook shows of the results of a run."""
    too_long = "All in all " + "x" * 60_000
    reviews = ["Great phone.", "Broke after a day.", "Works, and looks good.", too_long, "Never again."]
    answers = {"Great": "good", "Broke": "bad", "Works": "good", "Never": "bad"}

    def script(request: Any) -> Any:
        for start, text in answers.items():
            if start in request.prompt:
                return Delay(0.2, then=Answer(text))
        return Error(400, "This model's maximum context length is 8192 tokens.", code="context_length_exceeded")

    with FakeServer(script=script) as server, ChatPool("gpt-4o-mini", base_url=server.base_url) as pool:
        return pool.map(reviews, prompt="Good or bad? {}".format)._repr_html_()


def shoot(page: Path, picture: Path, width: int, height: int) -> None:
    """Write a picture of a page."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={width},{height}"]
    command = [chromium, *options, f"--screenshot={picture}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True)
    print(picture)


def shoot_site(picture: Path, width: int, height: int) -> None:
    """Ask the site some questions, and write a picture while the answers arrive."""
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    command = [sys.executable, str(ROOT / "examples/django_site/serve.py"), "--practice", "--port", "0"]
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.binary_location = shutil.which("chromium") or ""
    site = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.get(site.stdout.readline().split()[0])
        driver.find_element("css selector", "[data-examples]").click()
        driver.find_element("id", "id_questions").send_keys("\nWhat if it should fail?")
        driver.find_element("css selector", "[type=submit]").click()
        WebDriverWait(driver, 60, 0.1).until(lambda _: driver.find_elements("css selector", ".card[data-state=done]"))
        driver.save_screenshot(str(picture))
    finally:
        driver.quit()
        site.send_signal(signal.SIGINT)
        site.wait()
    print(picture)


if __name__ == "__main__":
    main()
