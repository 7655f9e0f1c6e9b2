// Faults: what is active, and the form that injects them.
const affected = ({ count, cohort }) => ({ count: Number(count), cohort_id: cohort || null });
const INJECT = {
  status: ({ status, retry, ...rest }) => ["status", {
    status: Number(status), headers: retry ? { "Retry-After": retry } : {}, ...affected(rest),
  }],
  before: (fields) => ["drop", { when: "before", ...affected(fields) }],
  after: (fields) => ["drop", { when: "after", ...affected(fields) }],
  share: ({ percent }) => ["share", { share: Number(percent) / 100 }],
  latency: ({ seconds }) => ["latency", { seconds: Number(seconds) }],
  poison: ({ ids }) => ["poison", { ids: ids.split(/\r?\n/).filter(Boolean) }],
  hold: () => ["hold", { held: true }],
};

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
  const list = get("active").querySelector("ul");
  get("active").hidden = !lines.length;
  while (list.children.length > lines.length) list.lastChild.remove();
  lines.forEach((line, at) => put(list.children[at] ?? list.appendChild(document.createElement("li")), line));
}

async function steer(method, path, body) {
  let problem = "";
  try {
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(`/_emulator/faults${path}`, { method, headers, body: JSON.stringify(body) });
    if (!answer.ok) problem = (await answer.json()).error;
  } catch {
    problem = "The emulator doesn't answer: nothing has changed";
  }
  put(get("problem"), problem);
  await refresh();
  return !problem;
}

function showFields() {
  const { kind } = get("inject").elements;
  for (const label of get("inject").querySelectorAll("[data-for]")) {
    label.hidden = !label.dataset.for.split(" ").includes(kind.value);
    label.querySelector("input, textarea").disabled = label.hidden;
  }
}

get("inject").addEventListener("change", showFields);
get("inject").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { kind, ...fields } = Object.fromEntries(new FormData(event.target));
  const [path, body] = INJECT[kind](fields);
  if (await steer("POST", `/${path}`, body)) get("inject").elements.ids.value = "";
});
get("clear").addEventListener("click", async () => {
  await steer("DELETE", "");
  document.querySelector("summary").focus(); // the button is gone
});

showFields();
