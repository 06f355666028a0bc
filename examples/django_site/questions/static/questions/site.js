"use strict";

const POLL_MILLISECONDS = 700;
const STATES = {waiting: "Waiting", streaming: "Writing", done: "Done", error: "Failed", stopped: "Stopped"};
const questionsIn = text => text.split("\n").filter(line => /[^\s\x1c-\x1f\x85]/.test(line)); // as Python strips them

for (const field of document.querySelectorAll("textarea[data-most]")) prepare(field);
for (const form of document.querySelectorAll("#ask")) askSideBySide(form);
for (const place of document.querySelectorAll("#progress")) watch(place);

/** Show how many questions a field has, and how many it may have; fill it with examples. */
function prepare(field) {
  const shown = field.form.querySelector("[data-count]");
  const count = () => {
    const lines = questionsIn(field.value).length;
    const over = lines > field.dataset.most;
    shown.textContent = `${lines} of ${field.dataset.most}`;
    shown.toggleAttribute("data-over", over);
    field.setCustomValidity(over ? `Up to ${field.dataset.most} questions can be asked here.` : "");
  };
  field.addEventListener("input", count);
  field.form.querySelector("[data-examples]").addEventListener("click", event => {
    field.value = event.target.dataset.examples;
    count();
    field.form.querySelector("[type=submit]").focus();
  });
  count();
}

/** Send the form, and show the answers while they are written. */
function askSideBySide(form) {
  const [field, ask, stop] = ["textarea", "[type=submit]", "[data-stop]"].map(name => form.querySelector(name));
  const [told, problem] = [".told", ".problem"].map(name => form.querySelector(name));
  const examples = form.querySelector("[data-examples]");
  let asking = null;
  field.addEventListener("keydown", event => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  stop.addEventListener("click", () => asking.abort());
  window.addEventListener("pagehide", () => asking?.abort()); // a browser may keep the page, with its connection
  form.addEventListener("submit", async event => {
    event.preventDefault();
    if (asking) return;
    asking = new AbortController();
    setBusy(true);
    problem.hidden = true;
    const [body, questions] = [new FormData(form), questionsIn(field.value)];
    body.set("questions", questions.join("\n"));
    try {
      const response = await fetch(form.action, {method: "POST", body, signal: asking.signal});
      if (!response.ok) throw new Error(await reasonOf(response));
      await showAnswers(response, questions, told, asking.signal);
    } catch (error) {
      problem.textContent = error instanceof TypeError ? "The site cannot be reached; try again." : error.message;
      problem.hidden = asking.signal.aborted;
    } finally {
      asking = null;
      setBusy(false);
    }
  });

  function setBusy(busy) {
    if (!busy && document.activeElement === stop) field.focus();
    ask.setAttribute("aria-disabled", busy);
    stop.hidden = !busy;
    examples.hidden = busy;
  }
}

async function reasonOf(response) {
  const isOurs = response.headers.get("Content-Type")?.startsWith("application/json");
  return isOurs ? (await response.json()).message : `The site answered with status ${response.status}; reload the page.`;
}

/** Make a card for each question, and fill them with the events of the response. */
async function showAnswers(response, questions, told, signal) {
  const cards = questions.map(makeCard);
  document.querySelector("#answers").replaceChildren(...cards.map(card => card.element));
  const count = () => {
    const [done, failed] = ["done", "error"].map(state => cards.filter(card => card.element.dataset.state === state).length);
    told.textContent = `${done} of ${cards.length} answered${failed ? `, ${failed} failed` : ""}`;
  };
  count();
  try {
    for await (const {name, data} of events(response.body)) {
      if (name === "end") break;
      const card = cards[data.index];
      if (name === "text") card.add(data.text);
      else if (name === "done") card.end("done", data.usage ? `${data.usage.total_tokens} tokens` : "");
      else card.end("error", "", data.message);
      if (name !== "text") count();
    }
  } finally {
    const end = signal.aborted ? ["stopped", "", ""] : ["error", "", "The answer broke off; try again."];
    cards.filter(card => !card.ended).forEach(card => card.end(...end));
    if (signal.aborted) told.textContent = "Stopped";
  }
}

function makeCard(question) {
  const element = document.querySelector("#card").content.firstElementChild.cloneNode(true);
  const [title, answer, state, figures] = ["h2", ".answer", ".state", ".figures"].map(name => element.querySelector(name));
  const began = performance.now();
  const set = value => [element.dataset.state, state.textContent] = [value, STATES[value]];
  title.textContent = question.trim();
  return {
    element,
    ended: false,
    add(text) {
      set("streaming");
      answer.append(text);
    },
    end(value, tokens, message = "") {
      this.ended = true;
      set(value);
      if (message) answer.append(Object.assign(document.createElement("span"), {className: "why", textContent: message}));
      element.setAttribute("aria-busy", "false"); // now it is read out
      const seconds = `${((performance.now() - began) / 1000).toFixed(1)} s`;
      figures.textContent = [tokens, seconds].filter(Boolean).join(" · ");
    },
  };
}

/** The server-sent events of a body: EventSource cannot post, and asks again when a connection breaks. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader(); // Safari's streams are not iterable
  let rest = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const blocks = (rest + part.value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map(line => line.split(/: (.*)/s)));
      if (fields.data) yield {name: fields.event ?? "text", data: JSON.parse(fields.data)};
    }
  }
}

/** Fetch the progress of a list until it has ended. */
async function watch(place) {
  const told = document.querySelector("#told");
  for (;;) {
    const shown = place.firstElementChild;
    if (told.textContent !== shown.dataset.told) told.textContent = shown.dataset.told;
    if ("ended" in shown.dataset) return;
    await new Promise(resolve => setTimeout(resolve, POLL_MILLISECONDS));
    const response = await fetch(place.dataset.from).catch(() => null); // the site may be away for a moment
    if (response?.ok) place.innerHTML = await response.text();
  }
}
