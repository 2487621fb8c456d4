/** The demo page: what Tidewire delivers, made visible. */

import { Tidewire } from "tidewire";
import { Sparkline, Wire } from "./charts.js";
import { HttpStreamSocket, SseSocket } from "./transports.js";

const WINDOW_SECONDS = 90;
const DROP_SECONDS = 6;
const config = JSON.parse(document.getElementById("demo-config").textContent);

/** @param {string} id */
const $ = (id) => document.getElementById(id);
const say = (/** @type {string} */ id, /** @type {any} */ text) => {
  const element = $(id);
  if (element.textContent !== String(text)) element.textContent = String(text);
};
const plural = (/** @type {number} */ count, /** @type {string} */ word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// --- a cable to pull ---------------------------------------------------------------------------------------------

const SOCKETS = { http_stream: HttpStreamSocket, sse: SseSocket };

/** The chosen transport with a cable that can be pulled: the client below knows nothing of it. */
class Cable {
  static isPulled = false;
  static transport = "websocket";
  /** @type {{ close(): void } | null} */ static plugged = null;

  /** @param {string} url */
  constructor(url) {
    if (Cable.isPulled) throw new Error("the cable is pulled");
    const Socket = SOCKETS[Cable.transport];
    Cable.plugged = Socket ? new Socket(config.transports[Cable.transport]) : new WebSocket(url);
    return Cable.plugged;
  }

  static pull() {
    Cable.isPulled = true;
    Cable.plugged?.close();
  }

  static plugIn() {
    Cable.isPulled = false;
    window.dispatchEvent(new Event("online")); // as the browser does when the network is back
  }
}

const tidewire = Tidewire.fromPage({ websocket: Cable, minDelay: 300, maxDelay: 3000 });
const system = tidewire.subscribe(config.system);
const chat = tidewire.subscribe(config.chat);

// --- what arrived: in order, missing, twice ----------------------------------------------------------------------

/** Books about one stream. Offsets rise by one, so two neighbours tell everything. */
class Ledger {
  /** @type {Set<number>} */ seen = new Set();
  first = 0;
  last = 0;
  recovered = 0;
  twice = 0;

  /** @param {{ offset?: number, recovered: boolean }} publication */
  enter({ offset = 0, recovered }) {
    if (!this.first) this.first = offset;
    if (this.seen.has(offset)) this.twice++;
    this.seen.add(offset);
    this.last = Math.max(this.last, offset);
    if (recovered) this.recovered++;
  }

  get missing() {
    return this.first ? this.last - this.first + 1 - this.seen.size : 0;
  }

  show() {
    say("in-order", this.seen.size);
    say("recovered", this.recovered);
    say("missing", this.missing);
    say("twice", this.twice);
  }
}

let ledger = new Ledger();

// --- the stream --------------------------------------------------------------------------------------------------

const wire = new Wire($("wire"), WINDOW_SECONDS);
const lines = {
  cpu: new Sparkline($("cpu-line"), { max: 100 }),
  memory: new Sparkline($("memory-line"), { max: 100 }),
  in: new Sparkline($("network-in-line")),
  out: new Sparkline($("network-out-line")),
};

/** @param {number} bytes */
function sizeOf(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let power = 0;
  for (; bytes >= 1000 && power < units.length - 1; power++) bytes /= 1000;
  return `${bytes >= 100 || power === 0 ? Math.round(bytes) : bytes.toFixed(1)} ${units[power]}`;
}

/** @param {any} publication  @param {"live" | "recovered" | "past"} kind */
function plot({ data, offset }, kind) {
  wire.add({ at: data.at, level: data.cpu / 100, offset, kind });
  lines.cpu.add(data.cpu);
  lines.memory.add(data.memory.percent);
  lines.in.add(data.network.in);
  lines.out.add(data.network.out);
}

/** What a client publishes says who it was; the measuring process publishes over the API, which says nothing. */
const isMeasured = (/** @type {any} */ { info }) => !info;

/** @param {any} data */
function showMeters({ cpu, cores, memory, network }) {
  say("cpu", `${cpu.toFixed(1)} % of ${plural(cores, "core")}`);
  say("memory", `${sizeOf(memory.used)} of ${sizeOf(memory.total)}`);
  say("network-in", `${sizeOf(network.in)}/s`);
  say("network-out", `${sizeOf(network.out)}/s`);
}

function showPosition() {
  say("offset", system.position?.offset ?? "–");
  say("epoch", system.position?.epoch ?? "–");
}

system.on("publication", (publication) => {
  ledger.enter(publication);
  ledger.show();
  showPosition();
  if (!isMeasured(publication)) return;
  plot(publication, publication.recovered ? "recovered" : "live");
  showMeters(publication.data);
});

/** Draw what was published before this page came, older than anything that arrived since. */
async function drawHistory() {
  const { publications } = await system.history({ limit: WINDOW_SECONDS, reverse: true });
  const isOlder = ({ offset }) => !ledger.first || offset < ledger.first;
  const older = publications.filter((one) => isMeasured(one) && isOlder(one)).reverse();
  for (const publication of older) plot(publication, "past");
  if (older.length && !ledger.first) showMeters(older.at(-1).data);
}

system.on("subscribed", ({ recovered, wasRecovering, position }) => {
  showPosition();
  if (recovered) {
    requestAnimationFrame(showVerdict); // the recovered publications come right behind this event
    return;
  }
  if (wasRecovering) {
    say("verdict", `The stream began anew (epoch ${position?.epoch}): the server was restarted, and its memory with it.`);
    ledger = new Ledger();
    wire.clear();
  }
  drawHistory().catch(reportTrouble);
});

// --- dropping the connection -------------------------------------------------------------------------------------

const drop = /** @type {HTMLButtonElement} */ ($("drop"));
const dropText = drop.textContent;
/** @type {any} */ let countdown = 0;
/** @type {{ offset: number, recovered: number } | null} */ let beforeGap = null;

function showVerdict() {
  if (!beforeGap) return;
  const { offset, recovered } = beforeGap;
  const came = ledger.recovered - recovered;
  beforeGap = null;
  const which = came > 1 ? `offsets ${offset + 1} to ${offset + came}` : `offset ${offset + 1}`;
  const lost = `${ledger.missing || "none"} missing, ${ledger.twice || "none"} twice`;
  say("verdict", came ? `Back. ${plural(came, "publication")} recovered: ${which}, ${lost}.` : "Back. Nothing was published meanwhile.");
}

function plugIn() {
  clearInterval(countdown);
  drop.textContent = dropText;
  drop.classList.remove("pulled");
  Cable.plugIn();
}

drop.addEventListener("click", () => {
  if (Cable.isPulled) {
    plugIn();
    return;
  }
  Cable.pull();
  let left = DROP_SECONDS;
  const tick = () => {
    if (left === 0) plugIn();
    else drop.textContent = `Reconnect now (or in ${left--} s)`;
  };
  drop.classList.add("pulled");
  say("verdict", "No connection. The publisher goes on without you.");
  tick();
  countdown = setInterval(tick, 1000);
});

// --- the connection ----------------------------------------------------------------------------------------------

let connections = 0;
let renewals = 0;

function showState(/** @type {string} */ state, text = state) {
  document.body.dataset.state = state;
  say("state", text);
}

tidewire.on("connecting", () => {
  showState("connecting");
  wire.openGap();
  if (ledger.last) beforeGap ??= { offset: ledger.last, recovered: ledger.recovered };
});

tidewire.on("retry", ({ attempt, delay }) => {
  showState("connecting", `offline, attempt ${attempt} in ${(delay / 1000).toFixed(1)} s`);
});

tidewire.on("connected", ({ client }) => {
  wire.closeGap();
  showState("connected");
  say("client", client.slice(0, 8));
  if (connections++) say("reconnects", plural(connections - 1, "time"));
  measure();
});

tidewire.on("disconnected", ({ code, reason }) => showState("disconnected", `disconnected: ${reason} (${code})`));
tidewire.on("refreshed", () => say("renewals", plural(++renewals, "time")));

const transport = /** @type {HTMLSelectElement} */ ($("transport"));
for (const option of transport.querySelectorAll("option")) option.hidden = option.value !== "websocket" && !config.transports[option.value];
transport.addEventListener("change", () => {
  Cable.transport = transport.value;
  Cable.plugged?.close();
  window.dispatchEvent(new Event("online")); // dial at once
});

async function measure() {
  if (tidewire.state !== "connected") return;
  const start = performance.now();
  await system.presenceStats();
  say("latency", `${(performance.now() - start).toFixed(1)} ms`);
}
setInterval(() => measure().catch(() => say("latency", "–")), 2000);

/** @type {number[]} */ const arrivals = [];
const RATE_SECONDS = 5;
for (const channel of [system, chat]) channel.on("publication", () => arrivals.push(performance.now()));
setInterval(() => {
  const since = performance.now() - RATE_SECONDS * 1000;
  while (arrivals[0] < since) arrivals.shift();
  say("rate", (arrivals.length / RATE_SECONDS).toFixed(1));
}, 500);

function reportTrouble(/** @type {any} */ error) {
  if (tidewire.state === "connected") say("verdict", `Something failed: ${error.message}.`);
}

// --- who is here -------------------------------------------------------------------------------------------------

const MAX_SHOWN = 16;
/** @type {Map<string, any>} */ let present = new Map();

function showPresence() {
  /** @type {Map<string, { name: string, tabs: number }>} */ const users = new Map();
  for (const { user, conn_info: info } of present.values()) {
    const known = users.get(user) ?? { name: info?.name ?? user, tabs: 0 };
    users.set(user, { ...known, tabs: known.tabs + 1 });
  }
  say("here", present.size);
  const people = [...users].sort(([a], [b]) => Number(b === config.user) - Number(a === config.user));
  const items = people.slice(0, MAX_SHOWN).map(([user, { name, tabs }]) => {
    const item = document.createElement("li");
    item.textContent = name;
    const notes = [user === config.user && "you", tabs > 1 && `${tabs} tabs`].filter(Boolean);
    if (notes.length) item.append(Object.assign(document.createElement("small"), { textContent: notes.join(", ") }));
    return item;
  });
  if (people.length > MAX_SHOWN) {
    items.push(Object.assign(document.createElement("li"), { textContent: `and ${people.length - MAX_SHOWN} more` }));
  }
  $("presence").replaceChildren(...items);
}

system.on("subscribed", async () => {
  try {
    present = new Map(Object.entries(await system.presence()));
    showPresence();
  } catch (error) {
    reportTrouble(error);
  }
});
system.on("join", ({ info }) => {
  present.set(info.client, info);
  showPresence();
});
system.on("leave", ({ info }) => {
  present.delete(info.client);
  showPresence();
});

// --- chat --------------------------------------------------------------------------------------------------------

const MAX_MESSAGES = 100;
const messages = $("messages");

/** @param {any} publication  @param {boolean} isPast */
function messageOf({ data, info, offset, recovered }, isPast) {
  const item = document.createElement("li");
  item.dataset.offset = offset;
  const name = document.createElement("b");
  name.textContent = info ? (info.conn_info?.name ?? info.user) : "server";
  const text = document.createElement("span");
  text.textContent = typeof data?.text === "string" ? data.text : JSON.stringify(data);
  const note = document.createElement("small");
  note.textContent = recovered ? "recovered" : isPast ? "history" : `${offset}`;
  item.append(name, text, note);
  item.className = [info ? "" : "from-server", info?.user === config.user ? "mine" : "", recovered ? "recovered" : ""].join(" ");
  return item;
}

chat.on("publication", (publication) => {
  const isAtEnd = messages.scrollHeight - messages.scrollTop - messages.clientHeight < 40;
  messages.append(messageOf(publication, false));
  while (messages.children.length > MAX_MESSAGES) messages.firstElementChild.remove();
  if (isAtEnd) messages.scrollTop = messages.scrollHeight;
});

chat.on("subscribed", async ({ recovered }) => {
  if (recovered) return;
  try {
    const { publications } = await chat.history({ limit: 30, reverse: true });
    const shown = new Set([...messages.children].map((item) => Number(item.dataset.offset)));
    const older = publications.filter(({ offset }) => !shown.has(offset)).reverse();
    messages.prepend(...older.map((publication) => messageOf(publication, true)));
    messages.scrollTop = messages.scrollHeight;
  } catch (error) {
    reportTrouble(error);
  }
});

$("say").addEventListener("submit", async (event) => {
  event.preventDefault();
  const input = /** @type {HTMLInputElement} */ ($("text"));
  const text = input.value.trim();
  if (!text) return;
  input.value = "";
  try {
    await chat.publish({ text });
  } catch (error) {
    input.value = text;
    input.setCustomValidity(`Not sent: ${error.message}`);
    input.reportValidity();
    input.addEventListener("input", () => input.setCustomValidity(""), { once: true });
  }
});

// --- the document ------------------------------------------------------------------------------------------------

const deltaSwitch = /** @type {HTMLInputElement} */ ($("delta"));
/** @type {any} */ let board = null;
/** Without deltas nothing counts for us. */
let plainBytes = 0;
let plainCount = 0;

/** @param {any[]} departures */
function drawBoard(departures) {
  const rows = $("rows");
  departures.forEach(({ to, at, gate, note }, index) => {
    const row = rows.children[index] ?? rows.appendChild(document.createElement("li"));
    [at, to, gate, note].forEach((text, column) => {
      const cell = row.children[column] ?? row.appendChild(document.createElement("span"));
      if (cell.textContent === text) return;
      if (cell.textContent) cell.animate([{ background: "var(--sea-soft)" }, { background: "transparent" }], 1500);
      cell.textContent = text;
    });
  });
}

function showSaving() {
  const { documents, received, patches } = board.traffic;
  if (patches) {
    const share = (100 * (1 - received / documents)).toFixed(1);
    say("saving", `${sizeOf(received)} came for ${sizeOf(documents)} of documents: ${share} % saved by ${plural(patches, "patch").replace("patchs", "patches")}.`);
  } else if (documents) {
    say("saving", "The first document came whole; what differs follows.");
  } else if (plainCount) {
    say("saving", `${sizeOf(plainBytes)} came for ${plural(plainCount, "document")}: each of them whole.`);
  }
}

function watchBoard() {
  board?.remove();
  plainBytes = plainCount = 0;
  board = tidewire.subscribe(config.board, { delta: deltaSwitch.checked });
  board.on("publication", (/** @type {any} */ publication) => {
    if (!board.traffic.documents) {
      plainBytes += new TextEncoder().encode(JSON.stringify(publication.data)).length;
      plainCount++;
    }
    if (isMeasured(publication)) drawBoard(publication.data.rows);
    showSaving();
  });
}

deltaSwitch.addEventListener("change", watchBoard);
watchBoard();

// --- the code to copy --------------------------------------------------------------------------------------------

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const code = $(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    } catch {
      getSelection().selectAllChildren(code); // no clipboard without https: leave it to the visitor
    }
  });
}

tidewire.connect();
