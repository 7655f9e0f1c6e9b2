"use strict";
const EVERY_MS = 1000;
const DROPPED = {
  cohort_name: "Silently dropped: the cohort's name breaks a rule",
  name_taken: "Silently dropped: another cohort has this name",
  segment_limit: "Silently dropped: the workspace has too many segments",
  older: "Silently dropped: older than an earlier request",
  archived: "Silently dropped: the segment is archived",
};
const FAULTS = {
  status: "Injected fault",
  share: "Injected fault, one of a share",
  poison: "Injected fault: the request lists a poison member",
  drop_before: "Injected fault: connection reset, nothing applied",
  drop_after: "Injected fault: connection reset after the change",
};
const LIMIT_STATES = { good: "within the limit", near: "close to the limit", over: "over the limit" };
const NEAR = 0.9;
const OUTCOMES = {
  applied: "applied", applied_late: "applied late", late: "held back, to be applied late",
  dropped: "dropped", refused: "refused",
};
const get = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const time = new Intl.DateTimeFormat("en", {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const many = (count, noun) => `${number.format(count)} ${noun}${count === 1 ? "" : "s"}`;
const percent = (part, whole) => `${(100 * part / whole).toFixed(1)}%`;

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function bar(node, part, whole) {
  node.style.setProperty("--share", percent(Math.min(part, whole), whole));
  node.classList.toggle("over", part > whole);
}

const linkTo = ({ partner, cohort_id: id }) => `#${encodeURIComponent(partner)}/${encodeURIComponent(id)}`;
const sentAs = ({ partner, cohort_id: id }) => `${partner} / ${id}`;

// A cell is {text, href, below, bad, bar: [part, whole]}. Rows and cells are reused and only their text
// changes, so nothing flashes, and selections and scroll positions are kept.
function fill(id, rows, empty) {
  const [head] = get(id).querySelector("thead").rows;
  const [body] = get(id).querySelector("table").tBodies;
  if (body.className !== (rows.length ? "" : "empty")) body.replaceChildren();
  body.className = rows.length ? "" : "empty";
  if (!rows.length) {
    const cell = body.rows[0]?.cells[0] ?? body.insertRow().insertCell();
    cell.colSpan = head.cells.length;
    put(cell, empty);
  }
  while (body.rows.length > Math.max(rows.length, 1)) body.deleteRow(-1);
  rows.forEach((cells, at) => {
    const row = body.rows[at] ?? body.insertRow();
    cells.forEach((cell, column) => show(row.cells[column] ?? addCell(row, head.cells[column]), cell));
  });
}

function addCell(row, heading) {
  const cell = document.createElement(row.cells.length ? "td" : "th");
  if (cell.tagName === "TH") cell.scope = "row";
  cell.className = heading.className;
  cell.append(...["", "below", "bar"].map((name) => {
    const part = document.createElement(name ? "span" : "a"); // a link only if it has an href
    part.className = name;
    return part;
  }));
  row.append(cell);
  return cell;
}

function show(cell, { text, href = "", below = "", bad = false, bar: filled }) {
  const [main, small, line] = cell.children;
  put(main, text);
  if (!href) main.removeAttribute("href");
  else if (main.getAttribute("href") !== href) main.href = href;
  put(small, below);
  small.hidden = !below;
  line.hidden = !filled;
  if (filled) bar(line, ...filled);
  cell.classList.toggle("bad", bad);
}

// Records with the same key become one row: the newest, with their number.
function grouped(records, keyOf) {
  const groups = new Map();
  for (const record of records) {
    const key = JSON.stringify(keyOf(record));
    const group = groups.get(key) ?? { record, count: 0 };
    group.count += 1;
    groups.set(key, group);
  }
  return [...groups.values()];
}

function headOf({ record, count }) {
  return [
    { text: number.format(record.number), below: count > 1 ? many(count, "time") : "" },
    { text: time.format(record.arrived_at * 1000) },
  ];
}

const isBad = (request) => request.status !== 200 || ["dropped", "refused"].includes(request.outcome);

function cohortOf(request) {
  if (request.cohort_id === null) return { text: "–" };
  return { text: request.cohort_name, href: linkTo(request), below: sentAs(request) };
}

function answerOf(request) {
  if (request.answered === null) return { text: "waiting", below: OUTCOMES[request.outcome] };
  return { text: String(request.status ?? "none"), below: OUTCOMES[request.outcome], bad: isBad(request) };
}

function reasonOf(request) {
  if (request.dropped) return { text: DROPPED[request.dropped] };
  if (request.fault) return { text: FAULTS[request.fault], below: request.error_type ?? "" };
  if (request.status === null) return { text: "The client left before the answer" };
  return { text: request.reason ?? "", below: request.error_type ?? "" };
}

function membersOf(request) {
  if (request.members === null) return { text: "–" };
  return { text: (request.action === "add_members" ? "+" : "−") + number.format(request.members) };
}

function showPeak(peak, limit) {
  const state = peak > limit ? "over" : peak > NEAR * limit ? "near" : "good";
  put(get("peak"), `${number.format(peak)} of ${number.format(limit)}`);
  put(get("peak-state"), LIMIT_STATES[state]);
  bar(get("peak-bar"), peak, limit);
  get("peak-state").className = state;
  get("peak-bar").className = `bar ${state}`;
}

function showTotals({ totals, used, requests_per_minute: limit, max_payload_bytes: bytes, order }) {
  const others = Object.entries(totals.answers).filter(([status]) => status !== "200");
  put(get("order"), order);
  put(get("used"), `${number.format(used)} of ${number.format(limit)}`);
  bar(get("used-bar"), used, limit);
  showPeak(totals.largest_window, limit);
  put(get("count"), number.format(totals.requests));
  put(get("answers"), others.map(([status, count]) => `${number.format(count)}\u00a0×\u00a0${status}`).join(", "));
  put(get("sent"), number.format(totals.members_sent));
  put(get("bytes"), `changes in ${number.format(totals.bytes)} bytes`);
  put(get("held"), number.format(totals.members_held));
  put(get("cohort-count"), `in ${many(totals.cohorts, "cohort")}`);
  put(get("limit"), `${number.format(bytes)} bytes`);
}

function showAll(now) {
  showTotals(now);
  showFaults(faultsOf(now.faults));
  fill("cohorts", now.cohorts.map((cohort) => [
    {
      text: cohort.name, href: linkTo(cohort),
      below: cohort.late ? `${many(cohort.late, "change")} held back` : "",
    },
    { text: sentAs(cohort), below: cohort.sent_name === cohort.name ? "" : `now named ${cohort.sent_name}` },
    { text: number.format(cohort.members) },
  ]), "None yet.");
  fill("segments", now.segments.map((segment) => [
    { text: segment.name, below: segment.id },
    { text: segment.kind, below: segment.is_archived ? "archived" : "", bad: segment.is_archived },
    { text: segment.users === null ? "–" : number.format(segment.users) },
  ]), "None yet.");
  fill("calls", grouped(now.calls, ({ endpoint, error, status }) => [endpoint, error, status]).map((group) => [
    ...headOf(group),
    { text: group.record.endpoint, below: group.record.error ?? "" },
    { text: String(group.record.status ?? "none"), bad: group.record.status === null || group.record.status >= 300 },
  ]), "None yet.");
  fill("failed", grouped(now.failed, (request) => [cohortOf(request), answerOf(request), reasonOf(request)])
    .map((group) => [
      ...headOf(group), cohortOf(group.record), answerOf(group.record), reasonOf(group.record),
    ]), "None.");
  showRequests(now);
}

function showRequests({ requests, cohorts, max_payload_bytes: most }) {
  const [partner, id] = selection();
  const cohort = cohorts.find((each) => each.partner === partner && each.cohort_id === id);
  put(get("selected"), id === undefined ? "the last 50" : `the last 50 of ${cohort?.name ?? `${partner} / ${id}`}`);
  get("all").hidden = id === undefined;
  const sameBytes = (request) => [request.digest, request.bytes, request.changed, answerOf(request)];
  fill("requests", grouped(requests, sameBytes).map((group) => {
    const { record: request } = group;
    return [
      ...headOf(group),
      cohortOf(request),
      membersOf(request),
      { text: request.members === null ? "–" : number.format(request.changed) },
      {
        text: number.format(request.bytes), below: percent(request.bytes, most),
        bar: [request.bytes, most], bad: request.bytes > most,
      },
      answerOf(request),
    ];
  }), "None yet.");
}

// The address names the cohort whose requests are shown: #partner/cohort_id.
function selection() {
  try {
    const names = location.hash.slice(1).split("/").map(decodeURIComponent);
    return names.length === 2 ? names : [];
  } catch {
    return [];
  }
}

function overviewUrl() {
  const [partner, id] = selection();
  const query = id === undefined ? "" : `?${new URLSearchParams({ partner, cohort_id: id })}`;
  return `/_emulator/overview${query}`;
}

let shown = "";
let timer;

async function refresh() {
  const url = overviewUrl();
  try {
    const answer = await fetch(url, { cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    const text = await answer.text();
    if (url !== overviewUrl()) return; // another cohort was selected meanwhile
    if (text + url !== shown) showAll(JSON.parse(text));
    shown = text + url;
    put(get("live"), "Live");
    get("live").className = "";
  } catch {
    put(get("live"), "The emulator doesn't answer: this is the last known state");
    get("live").className = "lost";
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, EVERY_MS);
}

addEventListener("hashchange", async () => {
  await refresh();
  get("requests").querySelector(".scroll").focus();
  get("requests").scrollIntoView();
});

put(get("url"), location.origin);
refresh();
