// What happens when: signing in and out, asking again and again, and waiting longer while nobody answers.

import { Problem, ask, query, signedIn, use } from "./api.js";
import { say, showFunnel, showNow, showRevenue, showTopics } from "./view.js";

const STATUS_EVERY_MS = 2_000;
const QUERIES_EVERY_MS = 10_000;
const LONGEST_WAIT_MS = 60_000;
const RATES_KEPT = 60;

const byId = (id) => document.getElementById(id);
const clock = (date) => date.toISOString().slice(11, 19);

let timer = null;
let failures = 0;
let lastAnswer = null;
let before = null;
let rates = [];
let queried = -Infinity;
let revenue = null;
/** One round at a time; a later one makes an earlier one's answers void. */
let round = 0;

/** Sets a text only if it is another, so that it is read out once. */
function set(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

function connection(kind, text) {
  byId("connection").className = `connection ${kind}`;
  set("connection", text);
  byId("retry").hidden = kind !== "away";
  document.body.classList.toggle("stale", kind === "away");
}

/** Shows the form, and why. */
function askForToken(why) {
  clearTimeout(timer);
  round += 1;
  use(null);
  byId("figures").hidden = true;
  byId("sign-out").hidden = true;
  byId("process").textContent = "";
  connection("", "");
  byId("sign-in").hidden = false;
  set("sign-in-error", why);
  byId("token").focus();
}

function showFigures() {
  byId("sign-in").hidden = true;
  byId("figures").hidden = false;
  byId("sign-out").hidden = !signedIn();
}

/** Rates per second since the answer before; null if there is none of the same process. */
function ratesSince(status) {
  const now = { at: performance.now(), status };
  const then = before;
  before = now;
  if (then === null || then.status.started_at !== status.started_at) {
    rates = [];
    return {};
  }
  const elapsed = (now.at - then.at) / 1000;
  const of = (topic, key) => {
    const earlier = then.status.topics.find((one) => one.topic === topic.topic);
    return earlier === undefined ? 0 : Math.max(topic[key] - earlier[key], 0) / elapsed;
  };
  const byTopic = Object.fromEntries(status.topics.map((topic) => [topic.topic, { events: of(topic, "events"), rows: of(topic, "rows") }]));
  const all = (key) => Object.values(byTopic).reduce((sum, one) => sum + one[key], 0);
  rates = [...rates, { events: all("events"), rows: all("rows") }].slice(-RATES_KEPT);
  return byTopic;
}

/** What a part is told whose answer did not come; throws on if the whole page is concerned. */
function notice(problem) {
  if (!(problem instanceof Problem) || problem.status === 0 || problem.status === 401) throw problem;
  return problem.message;
}

async function refreshStatus(mine) {
  try {
    const status = await ask("v1/status");
    if (mine !== round) return;
    const byTopic = ratesSince(status);
    say("status", null);
    showNow(status, rates);
    showTopics(status, byTopic);
  } catch (problem) {
    const text = notice(problem);
    if (mine === round) say("status", text);
  }
}

async function refreshQueries(mine) {
  const minutes = byId("revenue-minutes").value;
  try {
    const rows = await query("revenue_per_minute", { minutes });
    const funnel = await query("funnel", { hours: "24" });
    if (mine !== round) return;
    revenue = { rows, minutes };
    say("queries", null);
    showRevenue(rows, minutes);
    showFunnel(funnel);
  } catch (problem) {
    const text = notice(problem);
    if (mine === round) say("queries", text);
  }
}

async function refresh() {
  clearTimeout(timer);
  const mine = (round += 1);
  if (lastAnswer === null && failures === 0) connection("", "Asking the process");
  try {
    await refreshStatus(mine);
    if (mine !== round) return;
    showFigures();
    if (performance.now() - queried >= QUERIES_EVERY_MS) {
      queried = performance.now();
      await refreshQueries(mine);
    }
    if (mine !== round) return;
    failures = 0;
    lastAnswer = new Date();
    connection("live", "Live");
    byId("connection").title = `Last answer at ${clock(lastAnswer)} UTC`;
    again(STATUS_EVERY_MS);
  } catch (problem) {
    if (mine !== round) return;
    if (!(problem instanceof Problem)) throw problem;
    if (problem.status === 401) {
      askForToken(signedIn() ? `${problem.message}.` : "");
      return;
    }
    failures += 1;
    before = null;
    queried = -Infinity;
    const wait = Math.min(STATUS_EVERY_MS * 2 ** (failures - 1), LONGEST_WAIT_MS);
    const since = lastAnswer === null ? "" : ` since ${clock(lastAnswer)} UTC`;
    connection("away", `No answer${since}; trying again`);
    byId("connection").title = `Next try in ${Math.round(wait / 1000)} s`;
    again(wait);
  }
}

/** The next round; none while nobody looks. */
function again(wait) {
  clearTimeout(timer);
  if (document.visibilityState === "visible") timer = setTimeout(refresh, wait);
}

byId("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = byId("token").value.replace(/\s+/g, "").replace(/^Bearer/i, "");
  // A header takes nothing else, and a token has nothing else.
  if (!/^[\w.~+/=-]+$/.test(token)) {
    set("sign-in-error", "This is no token: expected letters, digits and . - _ only.");
    return;
  }
  byId("token").value = "";
  set("sign-in-error", "");
  use(token);
  [failures, lastAnswer, before, queried] = [0, null, null, -Infinity];
  refresh().then(() => byId("figures").hidden || byId("main").focus());
});
byId("sign-out").addEventListener("click", () => {
  use(null);
  // Nothing that was shown is left behind.
  location.reload();
});
byId("retry").addEventListener("click", refresh);
byId("revenue-minutes").addEventListener("change", () => {
  queried = -Infinity;
  refresh();
});
const redraw = () => revenue !== null && showRevenue(revenue.rows, revenue.minutes);
byId("revenue-currency").addEventListener("change", redraw);
new ResizeObserver(redraw).observe(byId("revenue-chart"));
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && refresh());

if (signedIn() || document.documentElement.dataset.auth === "none") refresh();
else askForToken("");
