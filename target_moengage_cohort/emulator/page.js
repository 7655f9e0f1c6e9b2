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

// A cell is {text, below, bad, bar: [part, whole]}. Rows and cells are reused and only their text
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
    const part = document.createElement("span");
    part.className = name;
    return part;
  }));
  row.append(cell);
  return cell;
}

function show(cell, { text, below = "", bad = false, bar: filled }) {
  const [main, small, line] = cell.children;
  put(main, text);
  put(small, below);
  small.hidden = !below;
  line.hidden = !filled;
  if (filled) bar(line, ...filled);
  cell.classList.toggle("bad", bad);
}

const isBad = (request) => request.status !== 200 || ["dropped", "refused"].includes(request.outcome);

function cohortOf(request) {
  if (request.cohort_id === null) return { text: "–" };
  return { text: request.cohort_name, below: `${request.partner} / ${request.cohort_id}` };
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

function faultsOf({ scripted, share, latency, poisoned, held }) {
  const lines = scripted.map(({ fault, left }) => {
    const what = {
      drop_before: "connection reset, nothing applied",
      drop_after: "connection reset after the change",
    }[fault.kind] ?? `answer ${fault.status}${fault.applied ? ", applied anyway" : ""}`;
    const of = fault.cohort_id === null ? "" : ` of cohort ${fault.cohort_id}`;
    return `Next ${many(left, "request")}${of}: ${what}`;
  });
  if (share) lines.push(`${percent(share.share, 1)} of requests: answer ${share.statuses.join(", ")}`);
  if (latency) lines.push(`Answers are delayed by ${latency.seconds} s`);
  if (poisoned) lines.push(`Requests that list ${many(poisoned, "poison member")}: answer 400`);
  if (held) lines.push("All answers are held back");
  return lines;
}

function showFaults(lines) {
  const list = get("faults").querySelector("ul");
  get("faults").hidden = !lines.length;
  while (list.children.length > lines.length) list.lastChild.remove();
  lines.forEach((line, at) => put(list.children[at] ?? list.appendChild(document.createElement("li")), line));
}

function showTotals({ totals, used, requests_per_minute: limit, max_payload_bytes: bytes, order }) {
  const others = Object.entries(totals.answers).filter(([status]) => status !== "200");
  put(get("order"), order);
  put(get("used"), `${number.format(used)} of ${number.format(limit)}`);
  bar(get("used-bar"), used, limit);
  put(get("largest"), number.format(totals.largest_window));
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
      text: cohort.name,
      below: `${cohort.partner} / ${cohort.cohort_id}`
        + (cohort.late ? `; ${many(cohort.late, "change")} held back` : ""),
    },
    { text: number.format(cohort.members) },
  ]), "None yet.");
  fill("segments", now.segments.map((segment) => [
    { text: segment.name, below: segment.id },
    { text: segment.kind, below: segment.is_archived ? "archived" : "", bad: segment.is_archived },
    { text: segment.users === null ? "–" : number.format(segment.users) },
  ]), "None yet.");
  fill("calls", now.calls.map((call) => [
    { text: number.format(call.number) },
    { text: time.format(call.arrived_at * 1000) },
    { text: call.endpoint, below: call.error ?? "" },
    { text: String(call.status ?? "none"), bad: call.status === null || call.status >= 300 },
  ]), "None yet.");
  fill("failed", now.failed.map((request) => [
    { text: number.format(request.number) },
    { text: time.format(request.arrived_at * 1000) },
    cohortOf(request), answerOf(request), reasonOf(request),
  ]), "None.");
  fill("requests", now.requests.map((request) => [
    { text: number.format(request.number) },
    { text: time.format(request.arrived_at * 1000) },
    cohortOf(request),
    membersOf(request),
    { text: request.members === null ? "–" : number.format(request.changed) },
    {
      text: number.format(request.bytes), below: percent(request.bytes, now.max_payload_bytes),
      bar: [request.bytes, now.max_payload_bytes], bad: request.bytes > now.max_payload_bytes,
    },
    answerOf(request),
  ]), "None yet.");
}

let shown = "";

async function refresh() {
  try {
    const answer = await fetch("/_emulator/overview", { cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    const text = await answer.text();
    if (text !== shown) showAll(JSON.parse(text));
    shown = text;
    put(get("live"), "Live");
    get("live").className = "";
  } catch {
    put(get("live"), "The emulator doesn't answer: this is the last known state");
    get("live").className = "lost";
  }
  setTimeout(refresh, EVERY_MS);
}

put(get("url"), location.origin);
refresh();
