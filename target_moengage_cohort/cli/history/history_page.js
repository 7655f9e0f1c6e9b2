"use strict";

const data = JSON.parse(document.getElementById("figures").textContent);
const points = data.points;
const drawn = data.cohorts.filter((cohort) => cohort.points);
const every = data.by_day ? "day" : "run";
const number = new Intl.NumberFormat("en");
const day = 86_400_000;
const LEGEND_ROW = 20;

function put(id, text) {
  document.getElementById(id).textContent = text;
}

function count(amount, noun) {
  return `${number.format(amount)} ${noun}${amount === 1 ? "" : "s"}`;
}

function minute(at) {
  return at ? at.slice(0, 16).replace("T", " ") : "–";
}

function sum(name) {
  return points.reduce((total, point) => total + point[name], 0);
}

// Names are text, but the library takes some of HTML and TeX in labels for a format.
function label(name, width = 22) {
  const characters = [...name.replace(/\s/g, " ")];
  const shown = characters.length > width ? [...characters.slice(0, width - 1), "…"] : characters;
  return shown.join("").replace(/[&<>$%]/g, (character) => `&#${character.charCodeAt(0)};`);
}

function element(tag, text, className) {
  return Object.assign(document.createElement(tag), { textContent: text, className });
}

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// Bars are as wide as the usual time between two of them permits, and never too thin to see.
function barWidth() {
  const times = points.map((point) => Date.parse(point.at));
  const span = Math.max(...times) - Math.min(...times);
  const gaps = times.slice(1).map((time, index) => time - times[index]).sort((a, b) => a - b);
  const usual = gaps.length ? gaps[Math.floor(gaps.length / 2)] : day / 24;
  return Math.max(usual * 0.8, span / 300) || day / 24;
}

function bars(field, name, tone, sign = 1) {
  return {
    type: "bar",
    name,
    x: points.map((point) => point.at),
    y: points.map((point) => sign * point[field]),
    width: barWidth(),
    customdata: points.map((point) => [number.format(point[field]), label(point.label, 60)]),
    hovertemplate: `%{x|%Y-%m-%d %H:%M}<br>%{customdata[1]}<br>%{customdata[0]} ${name}<extra></extra>`,
    marker: { color: color(tone), line: { width: 0 } },
  };
}

// The library would put ticks between few whole numbers; the format tells those of a zoom apart.
function whole(traces) {
  const span = traces.reduce((total, trace) => total + Math.max(...trace.y.map(Math.abs)), 0);
  return { tickformat: ",.3~f", ...(span <= 8 ? { dtick: 1 } : {}) };
}

function lines() {
  return drawn.map((cohort) => ({
    type: "scatter",
    mode: cohort.points.length > 60 ? "lines" : "lines+markers",
    name: label(cohort.cohort_id),
    x: cohort.points.map((point) => point[0]),
    y: cohort.points.map((point) => point[1]),
    line: { shape: "hv", width: 2 },
    marker: { size: 5 },
    hovertemplate: `${label(cohort.cohort_id, 60)}<br>%{x|%Y-%m-%d %H:%M}<br>%{y:,} members<extra></extra>`,
  }));
}

function plot(id, traces, height, axis = {}) {
  const place = document.getElementById(id);
  const width = place.clientWidth;
  const legend = traces.length > 1;
  const columns = traces.length > 2 ? Math.max(1, Math.floor(width / 240)) : 2;
  const rows = legend ? Math.ceil(traces.length / columns) : 0;
  const grid = { gridcolor: color("line"), linecolor: color("line"), zerolinecolor: color("line") };
  const ends = points.map((point) => point.at).concat(data.now).sort();
  const margin = Math.max(Date.parse(ends.at(-1)) - Date.parse(ends[0]), day / 24) / 40;
  const range = [Date.parse(ends[0]) - margin, Date.parse(ends.at(-1)) + margin];
  const layout = {
    height: height + rows * LEGEND_ROW,
    margin: { l: 52, r: 12, t: 10, b: 44 + rows * LEGEND_ROW },
    barmode: "relative",
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: color("text") },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    hovermode: "closest",
    hoverlabel: {
      bgcolor: color("card"), bordercolor: color("line"), font: { color: color("text") },
    },
    showlegend: legend,
    legend: {
      orientation: "h", x: 0, xanchor: "left", y: 0, yref: "container", yanchor: "bottom",
      entrywidth: traces.length > 2 ? 170 : 70, traceorder: "normal",
    },
    xaxis: { type: "date", range, nticks: Math.max(3, Math.floor(width / 110)), ...grid },
    yaxis: { rangemode: "tozero", automargin: true, separatethousands: true, ...grid, ...axis },
  };
  Plotly.react(place, traces, layout, { displayModeBar: false, doubleClick: "reset" });
}

function draw() {
  if (drawn.length) {
    plot("sizes", lines(), 330);
  }
  if (points.length) {
    const changes = [bars("added", "added", "added"), bars("removed", "removed", "removed", -1)];
    plot("changes", changes, 260, whole(changes));
    const troubles = [
      bars("withheld", "withheld", "withheld"), bars("rejected", "rejected", "rejected"),
    ];
    plot("troubles", troubles, 260, whole(troubles));
    plot("requests", [bars("used", "% of the limit", "used")], 260, { ticksuffix: " %" });
    plot("durations", [bars("duration", "s", "used")], 260, { ticksuffix: " s" });
  }
}

function total(name, value, note) {
  const entry = document.createElement("div");
  const shown = element("dd", value);
  if (note) {
    shown.append(element("small", note));
  }
  entry.append(element("dt", name), shown);
  document.getElementById("totals").append(entry);
}

function totals() {
  const { succeeded = 0, ...others } = data.statuses;
  const notes = Object.entries(others).map(([status, amount]) => `${number.format(amount)} ${status}`);
  total("Runs", number.format(sum("runs")), notes.join(", ") || "all succeeded");
  total("Added by runs", number.format(sum("added")));
  total("Removed by runs", number.format(sum("removed")));
  total("Rejected", number.format(sum("rejected")));
  total("Requests", number.format(sum("requests")), `limit: ${number.format(data.limit)} per minute`);
  total("Throttled", `${number.format(Math.round(sum("throttled") / 60))} min`);
}

function row(table, cells) {
  const line = document.createElement("tr");
  for (const [text, className, below] of cells) {
    const cell = element("td", "", className ?? "");
    cell.append(element("span", text));
    if (below) {
      cell.append(element("span", below, "below"));
    }
    line.append(cell);
  }
  document.querySelector(`#${table} tbody`).append(line);
}

function tables() {
  const amount = (value) => (value === null ? "–" : number.format(value));
  for (const cohort of data.cohorts) {
    row("cohorts", [
      [cohort.cohort_id, "", cohort.stream === cohort.cohort_id ? "" : cohort.stream],
      [amount(cohort.members), "number"], [amount(cohort.added), "number"],
      [amount(cohort.removed), "number"], [minute(cohort.changed_at), "wide"],
    ]);
  }
  for (const event of data.events) {
    row("events", [
      [minute(event.at)], [`${event.what} ${event.name}`, "", event.note], [event.status, "short"],
      [amount(event.added), "number wide"], [amount(event.removed), "number wide"],
    ]);
  }
}

function words() {
  const first = points.length ? minute(points[0].at).slice(0, 10) : "no runs";
  put("period", `${data.title}: ${first} to ${minute(data.now)}. Times are in UTC.`);
  put("changes-title", `Added and removed by ${data.by_day ? "runs, each day" : "each run"}`);
  for (const heading of document.querySelectorAll(".each")) {
    heading.textContent += `, each ${every}`;
  }
  for (const heading of document.querySelectorAll(".most")) {
    heading.textContent += data.by_day ? ", highest of each day" : ", each run";
  }
  const all = data.cohort_count;
  if (!drawn.length) {
    put("drawn", "The ledger does not keep the members of these cohorts, so their sizes are unknown.");
  } else if (drawn.length < all) {
    put("drawn", `The ${drawn.length} most changed of ${count(all, "cohort")}; the table below lists all.`);
  }
  if (data.cohorts.length < all) {
    put("drawn", `The ${drawn.length} most changed of ${count(all, "cohort")}.`);
    put("listed", `The ${number.format(data.cohorts.length)} most changed of ${count(all, "cohort")}.`);
  }
  put("latest", data.events.length ? `The latest ${number.format(data.events.length)}.` : "None.");
}

words();
totals();
tables();
draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
let width = innerWidth;
addEventListener("resize", () => {
  if (width !== innerWidth) { // else a phone has only hidden its address bar
    width = innerWidth;
    draw();
  }
});
