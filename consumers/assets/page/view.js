// Puts answers into the page. Text is set as text, never as HTML; controls and places are left as they are, so that neither
// focus nor scroll position is lost when figures change.

import { columns, spark } from "./charts.js";

const byId = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const percent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });

/** `12,345`, or a dash. */
export const count = (number) => (number === null || number === undefined ? "–" : whole.format(number));

/** A rate per second. */
const rate = (number) => {
  if (number === null) return "–";
  return number > 0 && number < 9.95 ? number.toFixed(1) : whole.format(number);
};

/** `593 ms`, `1.5 s`, `3m 12s`, `2h 05m`, `4d 03h`, or a dash. */
export function seconds(time) {
  if (time === null || time === undefined) return "–";
  if (time < 0.9995) return `${Math.max(time * 1000, 0).toFixed(0)} ms`;
  if (time < 59.95) return `${time.toFixed(1)} s`;
  const all = Math.round(time);
  const [days, hours, minutes] = [Math.floor(all / 86400), Math.floor(all / 3600) % 24, Math.floor(all / 60) % 60];
  const two = (number) => String(number).padStart(2, "0");
  if (days > 0) return `${days}d ${two(hours)}h`;
  return hours > 0 ? `${hours}h ${two(minutes)}m` : `${minutes}m ${two(all % 60)}s`;
}

/** Hundredths as `1,234.50`, exactly. */
export function money(cents) {
  const [sign, digits] = cents < 0n ? ["−", -cents] : ["", cents];
  return `${sign}${whole.format(digits / 100n)}.${String(digits % 100n).padStart(2, "0")}`;
}

/** A decimal text such as `-1234.5` in hundredths, exactly. */
export function cents(text) {
  const [, sign, units, fraction = ""] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(String(text)) ?? [null, "", "0"];
  const all = BigInt(units) * 100n + BigInt(fraction.padEnd(2, "0").slice(0, 2));
  return sign ? -all : all;
}

/** `2026-01-31T12:00:01.123Z` or ClickHouse's form of it as `01-31 12:00:01`. */
const moment = (text) => String(text).replace("T", " ").slice(5, 19);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** A cell: a text, or {text, kind: "number" | "state" | "bar" | …}. The first of a row is its header. */
function cell(content, first) {
  const { text = "", kind = "", tone = "", share = 0, bad = false } = typeof content === "object" ? content : { text: content };
  const made = element(first ? "th" : "td", first ? { scope: "row" } : {});
  if (kind === "state") {
    made.append(element("span", { className: `state ${tone}` }, text));
  } else if (kind === "bar") {
    made.className = "bar-cell";
    const fill = element("span", { className: bad ? "fill bad" : "fill" });
    fill.style.width = `${Math.min(Math.max(share, 0), 1) * 100}%`;
    made.append(element("span", { className: "track" }, fill));
  } else {
    made.className = kind;
    made.append(text);
  }
  return made;
}

/** Fills a table: heads are texts or {text, kind}; `none` is said where there are no rows. */
function fill(id, caption, heads, rows, none) {
  const table = byId(id);
  if (table.tHead === null) {
    const made = heads.map((head) => {
      const { text, kind = "" } = typeof head === "object" ? head : { text: head };
      // A bar repeats the figure beside it.
      return kind === "bar" ? element("td", { className: "bar-cell" }) : element("th", { scope: "col", className: kind }, text);
    });
    table.append(element("caption", {}, caption), element("thead", {}, element("tr", {}, ...made)), element("tbody"));
  }
  const lines = rows.map((row) => element("tr", {}, ...row.map((content, at) => cell(content, at === 0))));
  table.tHead.hidden = lines.length === 0;
  const empty = () => element("tr", {}, element("td", { colSpan: heads.length, className: "quiet" }, none));
  table.tBodies[0].replaceChildren(...(lines.length > 0 ? lines : [empty()]));
}

const number = (text) => ({ text, kind: "number" });
const TONES = {
  running: "good", closed: "good", starting: "warn", paused: "warn", draining: "warn", half_open: "warn",
  taking_over: "warn", blocked: "warn", waiting_for_schema: "warn", stopped: "bad", open: "bad", ERROR: "bad", WARN: "warn",
};
const state = (name) => ({ text: name.replaceAll("_", " "), kind: "state", tone: TONES[name] ?? "" });
const sum = (values) => values.reduce((all, one) => all + one, 0);
const greatest = (values) => values.filter((value) => value !== null).reduce((most, one) => Math.max(most ?? one, one), null);

function tile(name, value, unit, detail, drawn) {
  const figure = element("dd", {}, value);
  if (unit) figure.append(" ", element("small", {}, unit));
  const made = element("div", { className: "tile" }, element("dt", {}, name), figure);
  if (detail) made.append(element("dd", { className: "detail" }, detail));
  if (drawn) made.lastChild.append(drawn);
  return made;
}

/** What the process and all its topics do now. `rates` is a list of {events, rows}, the latest last. */
export function showNow(status, rates) {
  const { topics } = status;
  const latest = rates.at(-1) ?? { events: null, rows: null };
  const dead = sum(topics.flatMap((topic) => Object.values(topic.dead_letters)));
  const lags = topics.flatMap((topic) => topic.partitions);
  const known = lags.filter((partition) => partition.lag_events !== null);
  const worst = (key) => greatest(topics.map((topic) => topic.freshness_seconds[key]));
  const split = (text) => text.split(" ").length === 2 && !/^\d+[mhd]/.test(text) ? text.split(" ") : [text, ""];
  const drawn = (key) => (rates.length > 1 ? spark(rates.map((one) => one[key])) : null);
  byId("process").textContent = `${status.version} · ${status.ready ? "ready" : "not ready"} · since ${moment(status.started_at)}`;
  byId("tiles").replaceChildren(
    tile("Events read", rate(latest.events), "/s", `${count(sum(topics.map((topic) => topic.events)))} in all`, drawn("events")),
    tile("Rows landed", rate(latest.rows), "/s", `${count(sum(topics.map((topic) => topic.rows)))} in all`, drawn("rows")),
    tile("Freshness p50", ...split(seconds(worst("p50"))), "slowest topic, last minute"),
    tile("Freshness p99", ...split(seconds(worst("p99"))), "slowest topic, last minute"),
    tile("Lag", known.length > 0 ? count(sum(known.map((one) => one.lag_events))) : "–", "events", `oldest ${seconds(greatest(lags.map((one) => one.lag_seconds)))}`),
    tile("Dead letters", count(dead), "", `${count(sum(topics.map((topic) => topic.duplicates)))} duplicates dropped`),
  );
}

/** State of each topic, lag, dead letters, breakers and errors. `rates` is by topic. */
export function showTopics(status, rates) {
  const { topics } = status;
  const several = topics.length > 1;
  fill("topics", "State of each topic",
    ["Topic", "State", { text: "Events/s", kind: "number" }, { text: "Rows", kind: "number" }, { text: "Duplicates", kind: "number" },
      { text: "Dead letters", kind: "number" }, { text: "Fresh p50", kind: "number" }, { text: "Fresh p99", kind: "number" }, "Waits for"],
    topics.map((topic) => [
      topic.topic, state(topic.state), number(rate(rates[topic.topic]?.events ?? null)), number(count(topic.rows)), number(count(topic.duplicates)),
      number(count(sum(Object.values(topic.dead_letters)))), number(seconds(topic.freshness_seconds.p50)), number(seconds(topic.freshness_seconds.p99)),
      { text: topic.why ?? topic.waiting_for ?? "–", kind: "message" },
    ]), "No topic is configured.");

  const partitions = topics.flatMap((topic) => topic.partitions.map((one) => ({ ...one, of: topic.topic })));
  const most = Math.max(...partitions.map((one) => one.lag_events ?? 0), 1);
  fill("lag", "Events and seconds behind, by partition",
    ["Partition", "State", { text: "Events behind", kind: "number" }, { text: "", kind: "bar" }, { text: "Oldest", kind: "number" }, { text: "Committed", kind: "number" }],
    partitions.map((one) => [
      several ? `${one.of} ${one.partition}` : String(one.partition), state(one.state), number(count(one.lag_events)),
      { kind: "bar", share: (one.lag_events ?? 0) / most }, number(seconds(one.lag_seconds)), number(count(one.committed)),
    ]), "No partition is assigned to this process.");

  const reasons = topics.flatMap((topic) => Object.entries(topic.dead_letters).map(([reason, letters]) => ({ of: topic.topic, reason, letters })));
  const listed = reasons.filter((one) => one.letters > 0).sort((one, other) => other.letters - one.letters);
  fill("dead", "Dead letters by reason",
    ["Reason", { text: "", kind: "bar" }, { text: "Letters", kind: "number" }],
    listed.map((one) => [
      several ? `${one.of}: ${one.reason.replaceAll("_", " ")}` : one.reason.replaceAll("_", " "),
      { kind: "bar", share: one.letters / listed[0].letters, bad: true }, number(count(one.letters)),
    ]), "None: every event could be read.");

  fill("breakers", "Circuit breakers", ["Guards", "State", "Since", "Why"],
    topics.flatMap((topic) => topic.breakers.map((one) => [
      one.target, state(one.state), { text: moment(one.since), kind: "nowrap" }, { text: one.error ?? "–", kind: "message" },
    ])), "None is in use yet.");

  const lines = topics.flatMap((topic) => topic.recent_errors.map((line) => ({ ...line, of: topic.topic })));
  // What concerns the whole process is told with each topic.
  const once = [...new Map(lines.map((line) => [`${line.at} ${line.message}`, line])).values()];
  once.sort((one, other) => other.at.localeCompare(one.at));
  fill("errors", "Recent warnings and errors", ["Last at", "Level", "Message"],
    once.slice(0, 20).map((line) => [
      { text: moment(line.at), kind: "nowrap" }, state(line.level),
      { text: line.repeated > 0 ? `${line.message} (${count(line.repeated)} more)` : line.message, kind: "message" },
    ]), "None.");
}

/** Revenue of one currency by minute; `rows` are those of the query revenue_per_minute. */
export function showRevenue(rows, minutes) {
  const totals = new Map();
  for (const row of rows) totals.set(row.currency, (totals.get(row.currency) ?? 0n) + cents(row.revenue));
  const currencies = [...totals.keys()].sort((one, other) => (totals.get(other) > totals.get(one) ? 1 : -1));
  const select = byId("revenue-currency");
  if ([...select.options].map((option) => option.value).sort().join() !== [...currencies].sort().join()) {
    const chosen = select.value;
    select.replaceChildren(...currencies.map((one) => element("option", { value: one }, one)));
    if (currencies.includes(chosen)) select.value = chosen;
  }
  const currency = select.value;
  const byMinute = new Map();
  for (const row of rows.filter((one) => one.currency === currency)) {
    const before = byMinute.get(row.minute) ?? { orders: 0, revenue: 0n };
    byMinute.set(row.minute, { orders: before.orders + row.orders, revenue: before.revenue + cents(row.revenue) });
  }
  const points = [...byMinute].sort(([one], [other]) => one.localeCompare(other));
  const orders = sum(points.map(([, point]) => point.orders));
  const total = totals.get(currency) ?? 0n;
  const summary = points.length > 0
    ? `${currency} ${money(total)} of ${count(orders)} paid orders in the last ${minutes} minutes of events`
    : "No paid orders in these minutes.";
  byId("revenue-summary").textContent = summary;
  const place = byId("revenue-chart");
  const drawn = points.map(([minute, point]) => ({
    label: minute.slice(11, 16), value: Number(point.revenue) / 100, title: `${minute.slice(11, 16)}: ${currency} ${money(point.revenue)}`,
  }));
  place.replaceChildren(...(points.length > 0 ? [columns(drawn, `Columns by minute. ${summary}.`, Math.max(place.clientWidth, 240))] : []));
  fill("revenue", "Revenue per minute", ["Minute", { text: "Orders", kind: "number" }, { text: "Revenue", kind: "number" }],
    points.toReversed().map(([minute, point]) => [minute.slice(0, 16), number(count(point.orders)), number(money(point.revenue))]), "None.");
}

/** How many orders came how far; `rows` are those of the query funnel. */
export function showFunnel(rows) {
  const most = Math.max(...rows.map((row) => row.orders), 1);
  const left = ["cancelled", "refunded"];
  fill("funnel", "Orders by step", ["Step", { text: "", kind: "bar" }, { text: "Orders", kind: "number" }, { text: "Share", kind: "number" }],
    rows.map((row) => [
      row.step, { kind: "bar", share: row.orders / most, bad: left.includes(row.step) }, number(count(row.orders)), number(row.share === null ? "–" : percent.format(Number(row.share))),
    ]), "No orders yet.");
}

/** Says in every part that needs `what` why it shows nothing; null takes that away. */
export function say(what, text) {
  for (const part of document.querySelectorAll(`[data-needs="${what}"]`)) {
    const said = part.querySelector(".notice") ?? part.appendChild(element("p", { className: "notice" }));
    said.textContent = text ?? "";
    said.hidden = text === null;
    for (const child of part.children) if (child !== said && child.tagName !== "H2" && !child.classList.contains("head")) child.hidden = text !== null;
  }
  if (what === "status") byId("tiles").hidden = text !== null;
}
