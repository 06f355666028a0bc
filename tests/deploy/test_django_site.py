"""The site of the examples under gunicorn, in a real browser: Debian's chromium, moved by Debian's chromedriver."""

from __future__ import annotations

import csv
import http.client
import os
import pathlib
import re
import shutil
import signal
import threading
import urllib.parse

import pytest
import requests

from chatpool.testing import Answer, Delay, Error, FakeServer, Stall, Stream

pytestmark = pytest.mark.deploy

SITE = pathlib.Path(__file__).parents[2] / "examples" / "django_site"
HUNG = 60  # seconds
LEFT = 20  # seconds; a browser that keeps the page it has left, with its connection, does so for longer
SLOTS = 16  # settings.CHATPOOL["default"]["MAX_WORKERS"]
AT_ONCE = 8  # questions of a page

DESKTOP, PHONE = (1200, 900), (390, 844)
WORDS = ["first", *(f" word{number}" for number in range(12))]
LONG = "Donaudampfschifffahrtsgesellschaft" * 8

# Lengths of the text of each card, in the order in which they were seen.
RECORD_GROWTH = """
window.growth = [];
const answers = document.querySelector("#answers");
new MutationObserver(() => {
  [...answers.querySelectorAll(".answer")].forEach((answer, index) => growth.push([index, answer.textContent.length]));
}).observe(answers, {subtree: true, childList: true, characterData: true});
"""
# Texts whose contrast to what is behind them is under 4.5 (WCAG 2.2, 1.4.3).
LOW_CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const channels = colour => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const luminance = colour => channels(colour).slice(0, 3).map(value => value / 255)
  .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
  .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
const background = element => {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if (channels(colour)[3] === 255) return colour;
  }
};
const ratio = element => {
  const [low, high] = [getComputedStyle(element).color, background(element)].map(luminance).sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
return [...document.querySelectorAll("body *")]
  .filter(element => [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()))
  .filter(element => element.checkVisibility() && !element.closest("[aria-disabled=true], noscript"))
  .filter(element => ratio(element) < 4.5)
  .map(element => `${element.tagName} ${element.textContent.trim().slice(0, 40)}: ${ratio(element).toFixed(2)}`);
"""
IS_FOCUS_SEEN = "const style = getComputedStyle(document.activeElement); return style.outlineStyle + style.outlineWidth"


def reply(request):
    """Answer as the tests want it: by the words of the question."""
    if "fail" in request.prompt:
        return Error(400, "the server's own words")
    if "for ever" in request.prompt:
        return Stream(["begun"], end="stall")
    if "formula" in request.prompt:
        return Answer('=HYPERLINK("http://evil.example")')
    if "markup" in request.prompt:
        return Answer("<img src=x onerror=alert(1)><script>alert(2)</script>")
    if request.body.get("stream"):
        return Stream(WORDS, every=0.1)
    return Delay(0.02, then=Answer(f"answer to {request.prompt}"))


@pytest.fixture
def model():
    """The server behind the site."""
    with FakeServer(reply) as server:
        yield server


@pytest.fixture
def start_site(python, tmp_path):
    """A function that starts the site; returns the program and its address, with the slash."""

    def start(*options, **environment):
        # Bytecode is kept: three interpreters that compile Django take a while.
        environment = {"TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "", **environment}
        program = python(str(SITE / "serve.py"), "--port", "0", *options, **environment)
        return program, program.wait_for(r"(http://127\.0\.0\.1:\d+/)  \(Ctrl-C ends it\)").group(1)

    return start


@pytest.fixture
def site(start_site, model):
    """The address of a site that asks ``model``."""
    _, address = start_site("--model", "m", OPENAI_BASE_URL=model.base_url, OPENAI_API_KEY="sk-secret")
    return address


class Visitor:
    """A browser without a window, and what somebody does with it."""

    def __init__(self, driver, downloads):
        self.driver = driver
        self.downloads = downloads

    def see(self, selector):
        return [element for element in self.driver.find_elements("css selector", selector) if element.is_displayed()]

    def click(self, selector):
        self.until(lambda: self.see(selector), selector)[0].click()

    def write(self, text):
        self.driver.find_element("id", "id_questions").send_keys(text)

    def press(self, *keys):
        from selenium.webdriver import ActionChains

        *held, last = keys
        chain = ActionChains(self.driver)
        for key in held:
            chain.key_down(key)
        chain.send_keys(last)
        for key in held:
            chain.key_up(key)
        chain.perform()

    def run(self, script):
        return self.driver.execute_script(script)

    def until(self, condition, what):
        """Wait until a condition is true; returns what it has returned."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, HUNG, poll_frequency=0.1).until(lambda _: condition(), f"never seen: {what}")

    def wait_for_answers(self, states):
        """Wait until the cards have ended in these states."""

        def seen():
            return self.run("return [...document.querySelectorAll('.card')].map(card => card.dataset.state)")

        self.until(lambda: seen() == states, states)

    def wait_for_progress(self, ended, told):
        """Wait until so many questions of a list have ended, and the page says this."""

        def seen():
            return self.run(
                "return [document.querySelector('progress')?.value, document.querySelector('#told')?.textContent]"
            )

        self.until(lambda: seen() == [ended, told], told)

    def look(self, size=DESKTOP, scheme="light"):
        """See the page in this size and scheme of colours."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size is PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def hidden_width(self):
        """Pixels that would have to be scrolled to."""
        return self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def leave(self):
        self.driver.get("about:blank")


@pytest.fixture
def visitor(tmp_path):
    """A visitor whose browser has said nothing in its console at the end."""
    webdriver = pytest.importorskip("selenium.webdriver")
    for program in ("chromium", "chromedriver"):
        assert shutil.which(program), f"there is no {program}: scripts/deploy-tests.sh installs Debian's"
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    downloads = tmp_path / "downloads"
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.set_page_load_timeout(HUNG)
        visitor = Visitor(driver, downloads)
        visitor.look()
        yield visitor
        assert [entry["message"] for entry in driver.get_log("browser")] == []
    finally:
        driver.quit()


@pytest.mark.smoke
def test_answers_are_shown_side_by_side_while_they_are_written(site, model, visitor):
    visitor.driver.get(site)
    visitor.run(RECORD_GROWTH)
    visitor.write("one?\ntwo?\nfor ever")
    visitor.click("#ask [type=submit]")
    visitor.wait_for_answers(["done", "done", "streaming"])

    texts = [element.text for element in visitor.see(".card .answer")]
    assert texts == ["".join(WORDS), "".join(WORDS), "begun"]
    growth, whole = visitor.run("return growth"), len("".join(WORDS))
    lengths = [{length for which, length in growth if which == card} for card in (0, 1)]
    assert min(map(len, lengths)) >= 5, "the text has come in too few pieces"
    second_began = next(place for place, (card, length) in enumerate(growth) if card == 1 and length)
    assert [0, whole] not in growth[:second_began], "one after the other"
    left, right, _ = (element.rect for element in visitor.see(".card"))
    assert (left["y"], left["x"] + left["width"] <= right["x"]) == (right["y"], True)
    assert [title.text for title in visitor.see(".card h2")] == ["one?", "two?", "for ever"]
    assert visitor.see("#ask .told")[0].text == "2 of 3 answered"
    assert re.fullmatch(r"\d+ tokens · \d+\.\d s", visitor.see(".card .figures")[0].text)
    assert [request.headers["authorization"] for request in model.requests] == ["Bearer sk-secret"] * 3
    assert "sk-secret" not in visitor.driver.page_source


@pytest.mark.smoke
def test_a_list_is_watched_to_its_end_and_its_table_downloaded(site, model, visitor):
    gates = {f"hold {number}": threading.Event() for number in (1, 2)}

    def answer(request):
        if request.prompt in gates:
            assert gates[request.prompt].wait(HUNG)
        return reply(request)

    model.set_script(answer)
    visitor.driver.get(site + "lists/")
    questions = [f"question {number}" for number in range(200)]
    questions[50:53] = ["please fail", "a formula", "=1+1"]
    questions[100:102] = gates
    visitor.run(f"document.querySelector('#id_questions').value = {chr(10).join(questions)!r}")
    visitor.click("#list [type=submit]")
    for ended, gate in zip((198, 199), gates.values()):
        visitor.wait_for_progress(ended, "200 questions are being answered.")
        assert len(visitor.see("tbody tr")) == 6
        gate.set()
    visitor.wait_for_progress(200, "Done: 199 answered, 1 failed.")

    figures = dict(zip(*([part.text for part in visitor.see(name)] for name in ("dt", "dd"))))
    assert (figures["Answered"], figures["Failed"]) == ("199 of 200", "1")
    assert int(figures["Tokens"].replace(",", "")) > 199
    assert re.fullmatch(r"\d+\.\d s", figures["Time"])
    assert "BadRequestError" in visitor.see(".causes")[0].text
    assert "the server's own words" not in visitor.driver.page_source

    visitor.click("a.button")
    file = visitor.downloads / "answers.csv"
    visitor.until(file.exists, file)
    with file.open(newline="", encoding="utf-8") as lines:
        head, *rows = csv.reader(lines)
    assert (head, len(rows)) == (["question", "answer", "error", "tokens", "seconds"], 200)
    assert rows[0][:3] == ["question 0", "answer to question 0", ""]
    assert rows[50][:3] == ["please fail", "", "BadRequestError"]
    assert rows[51][1] == '\'=HYPERLINK("http://evil.example")'
    assert rows[52][0] == "'=1+1"

    visitor.driver.get(site + "lists/")
    assert [link.text for link in visitor.see(".lists a")] == ["question 0"]


def test_a_file_is_taken_and_what_cannot_be_taken_is_told(site, visitor, tmp_path):
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text("\ufefffrom a file\n\nand more\n", encoding="utf-8")
    bad.write_bytes(b"\xff\xfe\x00")
    visitor.driver.get(site + "lists/")
    visitor.click("[type=submit]")
    assert visitor.see(".problem")[0].text == "Write at least one question."
    visitor.driver.find_element("id", "id_file").send_keys(str(bad))
    visitor.click("[type=submit]")
    visitor.until(lambda: "no text in UTF-8" in visitor.driver.page_source, "the problem")
    visitor.driver.find_element("id", "id_file").send_keys(str(good))
    visitor.click("[type=submit]")
    visitor.until(lambda: visitor.see("a.button"), "the table")
    assert [cell.text for cell in visitor.see("td.asked")] == ["from a file", "and more"]


def test_a_visitor_who_leaves_frees_the_slots_of_his_questions(site, model, visitor):
    questions = "\n".join(f"{number} for ever" for number in range(AT_ONCE))
    tabs = SLOTS // AT_ONCE
    for number in range(tabs):
        if number:
            visitor.driver.switch_to.new_window("tab")
        visitor.driver.get(site)
        visitor.write(questions)
        visitor.click("#ask [type=submit]")
        visitor.wait_for_answers(["streaming"] * AT_ONCE)
    assert model.in_flight == SLOTS
    for handle in visitor.driver.window_handles:
        visitor.driver.switch_to.window(handle)
        visitor.leave()
    model.wait_until(lambda: model.in_flight == 0, LEFT)
    visitor.driver.get(site)
    visitor.write(questions.replace(" for ever", "?"))
    visitor.click("#ask [type=submit]")
    visitor.wait_for_answers(["done"] * AT_ONCE)


def test_stop_ends_the_calls_and_keeps_what_has_come(site, model, visitor):
    visitor.driver.get(site)
    visitor.write("for ever\nfail")
    visitor.click("#ask [type=submit]")
    visitor.wait_for_answers(["streaming", "error"])
    visitor.click("[data-stop]")
    visitor.wait_for_answers(["stopped", "error"])
    assert [element.text for element in visitor.see(".answer")] == ["begun", "The question could not be answered."]
    model.wait_until(lambda: model.in_flight == 0, HUNG)
    assert not visitor.see(".problem")


def test_a_site_that_goes_away_is_said_to(start_site, model, visitor):
    program, address = start_site("--model", "m", OPENAI_BASE_URL=model.base_url)
    visitor.driver.get(address)
    visitor.write("for ever")
    visitor.click("#ask [type=submit]")
    visitor.wait_for_answers(["streaming"])
    program.end()
    visitor.wait_for_answers(["error"])
    assert "The answer broke off; try again." in visitor.see(".answer")[0].text
    visitor.click("#ask [type=submit]")
    visitor.until(lambda: visitor.see(".problem"), "the problem")
    assert visitor.see(".problem")[0].text == "The site cannot be reached; try again."
    visitor.driver.get_log("browser")  # the browser has told of it too


def test_everything_goes_by_the_keyboard(site, visitor):
    from selenium.webdriver import Keys

    visitor.driver.get(site)
    assert visitor.run("return document.activeElement.id") == "id_questions"
    visitor.press("one?")
    visitor.press(Keys.CONTROL, Keys.ENTER)
    visitor.wait_for_answers(["done"])
    visitor.press(Keys.SHIFT, Keys.TAB)
    assert visitor.run("return document.activeElement.textContent") == "Lists"
    assert visitor.run(IS_FOCUS_SEEN) == "solid3px"
    visitor.press(Keys.ENTER)
    visitor.until(lambda: visitor.driver.current_url.endswith("/lists/"), "lists")

    visited = []
    while "BUTTON Start" not in visited:
        visitor.press(Keys.TAB)
        visited.append(
            visitor.run("const on = document.activeElement; return `${on.tagName} ${on.textContent.trim()}`")
        )
        assert visitor.run(IS_FOCUS_SEEN) == "solid3px", visited[-1]
        assert len(visited) < 20
        if visited[-1].startswith("TEXTAREA"):
            visitor.press("by the keyboard")
    assert visited[:4] == ["A Skip to content", "A Side by side", "A Ask", "A Lists"]
    visitor.press(Keys.ENTER)
    link = visitor.until(lambda: visitor.see("a.button"), "the table")[0]
    while visitor.driver.switch_to.active_element != link:
        visitor.press(Keys.TAB)
    visitor.press(Keys.ENTER)
    visitor.until((visitor.downloads / "answers.csv").exists, "the file")


def pages(site, visitor):
    """Show each page in each of its states, and yield its name."""
    visitor.driver.get(site)
    yield "ask, empty"
    visitor.write(f"one?\nfor ever\nfail\n{LONG}")
    visitor.click("#ask [type=submit]")
    visitor.wait_for_answers(["done", "streaming", "error", "done"])
    yield "ask, streaming, done and failed"
    visitor.driver.get(site + "lists/")
    visitor.click("[type=submit]")
    visitor.until(lambda: visitor.see(".problem"), "the problem")
    yield "lists, empty, with a problem"
    visitor.write(f"{LONG}\nfail\nthree")
    visitor.click("[type=submit]")
    visitor.until(lambda: visitor.see("a.button"), "the table")
    yield "list, done"
    visitor.driver.get(site + "lists/")
    yield "lists"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_no_page_scrolls_sideways_and_every_text_can_be_read(site, visitor, size, scheme):
    visitor.look(size, scheme)
    for name in pages(site, visitor):
        assert visitor.hidden_width() <= 0, name
        assert visitor.run(LOW_CONTRAST) == [], name
        colour = visitor.run("return getComputedStyle(document.body).backgroundColor")
        is_dark = max(map(int, re.findall(r"\d+", colour)[:3])) < 64
        assert is_dark == (scheme == "dark"), (name, colour)


def test_each_answer_stands_under_its_question_whatever_is_between_them(site, model, visitor):
    visitor.driver.get(site)
    visitor.run(r"document.querySelector('#id_questions').value = '\ufeff\n \u2028\none?\x85more\n\x1c\n\r\nfail\n'")
    visitor.click("#ask [type=submit]")
    visitor.wait_for_answers(["done", "error"])
    assert sorted(request.prompt for request in model.requests) == ["fail", "one?\x85more"]


def test_words_of_visitors_and_models_are_shown_as_they_are(site, visitor):
    asked, answered = "<b>markup</b> & more", "<img src=x onerror=alert(1)><script>alert(2)</script>"
    visitor.driver.get(site)
    visitor.write(asked)
    visitor.click("#ask [type=submit]")
    visitor.wait_for_answers(["done"])
    assert (visitor.see(".card h2")[0].text, visitor.see(".card .answer")[0].text) == (asked, answered)
    visitor.driver.get(site + "lists/")
    visitor.write(asked)
    visitor.click("#list [type=submit]")
    visitor.until(lambda: visitor.see("a.button"), "the table")
    assert (visitor.see("td.asked")[0].text, visitor.see("td.answer")[0].text) == (asked, answered)


def test_what_may_not_be_sent_is_refused(site, model):
    stranger = requests.Session()
    assert stranger.post(site + "answers", {"questions": "one?"}, timeout=HUNG).status_code == 403
    page = stranger.get(site, timeout=HUNG)
    assert "'unsafe-inline'" not in page.headers["content-security-policy"]
    assert not re.search(r"<script(?! src)|<style| style=| on\w+=", page.text)
    token = {"csrfmiddlewaretoken": re.search(r'csrfmiddlewaretoken" value="(\w+)"', page.text).group(1)}

    for questions, message in [
        (" \n", "Write at least one question."),
        ("one?\n" * 9, "These are 9 questions; up to 8 can be asked here."),
        ("x" * 501, "Question 1 has 501 characters; shorten it to 500 or fewer."),
    ]:
        answer = stranger.post(site + "answers", {"questions": questions, **token}, timeout=HUNG)
        assert (answer.status_code, answer.json()) == (400, {"message": message})
    too_long = stranger.post(site + "lists/", {"questions": "x\n" * 501, **token}, timeout=HUNG)
    assert "These are 501 questions; up to 500 can be asked here." in too_long.text
    assert stranger.get(site + "lists/00000000-0000-4000-8000-000000000000/", timeout=HUNG).status_code == 404
    assert model.requests == []


def test_a_large_body_is_refused_before_it_is_read(site):
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(site).netloc, timeout=HUNG)
    connection.putrequest("POST", "/lists/")
    connection.putheader("Content-Length", str(600 * 1024))
    connection.endheaders()
    response = connection.getresponse()
    assert (response.status, response.read()) == (413, b"Too much at once: 512 KB is the limit.")
    connection.close()


def test_a_list_goes_on_when_its_process_was_killed(start_site, model, visitor):
    program, address = start_site("--model", "m", OPENAI_BASE_URL=model.base_url)
    model.set_script(lambda request: Stall() if request.prompt == "wait" else None)
    visitor.driver.get(address + "lists/")
    visitor.write("one\nwait\nthree")
    visitor.click("#list [type=submit]")
    visitor.wait_for_progress(2, "3 questions are being answered.")
    model.set_script(None)
    children = pathlib.Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
    arbiter = next(child for child in children if b"gunicorn" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes())
    worker = int(pathlib.Path(f"/proc/{arbiter}/task/{arbiter}/children").read_text().split()[0])
    os.kill(worker, signal.SIGKILL)
    visitor.wait_for_progress(3, "Done: 3 answered, 0 failed.")
    assert sorted(request.prompt for request in model.requests) == ["one", "three", "wait", "wait"]
    visitor.driver.get_log("browser")  # a look may have met no process


@pytest.mark.smoke
def test_the_practice_server_answers_and_ctrl_c_leaves_nothing(start_site, visitor, tmp_path):
    program, address = start_site("--practice")
    visitor.driver.get(address)
    visitor.click("[data-examples]")
    visitor.click("#ask [type=submit]")
    visitor.until(lambda: visitor.see("[data-state=streaming]"), "an answer")
    assert list(tmp_path.glob("chatpool-site-*/site.sqlite3"))
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does
    assert program.ended() == 0
    assert "Traceback" not in program.output
    assert list(tmp_path.glob("chatpool-site-*")) == []
    with pytest.raises(ProcessLookupError):
        os.killpg(program.pid, 0)
    with pytest.raises(requests.ConnectionError):
        requests.get(address, timeout=HUNG)
    visitor.driver.get_log("browser")  # the browser has told of the end


def test_a_port_in_use_is_named(python, model):
    program = python(str(SITE / "serve.py"), "--practice", "--port", str(model.port))
    assert program.ended() == 1
    assert f"Port {model.port} cannot be used (Address already in use); choose another" in program.output
