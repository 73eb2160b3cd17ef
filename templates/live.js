"use strict";
// What happens is put on top of the lists as it happens. Everything is set as text.
(() => {
  const live = document.getElementById("live");
  const row = (table, cells) => {
    const body = document.querySelector(`#${table} tbody`);
    const tr = document.createElement("tr");
    tr.className = "new";
    for (const cell of cells) {
      const td = document.createElement("td");
      td.append(cell.node ?? String(cell.text ?? ""));
      if (cell.name) td.className = cell.name;
      tr.append(td);
    }
    body.prepend(tr);
    while (body.rows.length > 200) body.lastElementChild.remove();
  };
  const code = (text) => {
    const node = document.createElement("code");
    node.textContent = text;
    return { node };
  };
  // Without what all URLs of a simulator begin with.
  const below = (url) => {
    const prefix = `/sim/${live.dataset.sim}/fhir`;
    return url.startsWith(prefix) ? url.slice(prefix.length) || "/" : url;
  };
  const link = (event, text) => {
    const node = document.createElement("a");
    node.href = `/sims/${encodeURIComponent(live.dataset.sim)}/events/${encodeURIComponent(event)}`;
    node.textContent = text;
    return { node };
  };
  // What was asked, and why it was refused.
  const asked = (e) => {
    const cell = code(`${e.method} ${below(e.url)}`);
    if (!e.why) return cell;
    const node = document.createElement("span");
    node.append(cell.node, document.createElement("br"), e.why);
    return { node };
  };
  const good = (status) => (status && status < 400 ? "good" : "bad");
  const listen = () => {
    const source = new EventSource(live.dataset.stream);
    source.onopen = () => { live.textContent = "Live: what happens now appears here at once."; };
    source.onerror = () => { live.textContent = "Not live: the server does not answer; this tries again."; };
    source.addEventListener("event", (message) => {
      const e = JSON.parse(message.data);
      const stored = e.resources.slice(0, 3).map((r) => `${r.type}/${r.id}`).join(", ");
      const more = e.resources.length > 3 ? ` and ${e.resources.length - 3} more` : "";
      row("events", [link(e.event, e.instant), { text: e.response.status, name: good(e.response.status) }, { text: e.interaction },
        code(`${e.request.method} ${below(e.request.url)}`), { text: stored + more }]);
    });
    source.addEventListener("read", (message) => {
      const e = JSON.parse(message.data);
      row("reads", [{ text: e.instant }, { text: e.status, name: good(e.status) }, { text: e.interaction }, asked(e)]);
    });
    source.addEventListener("reset", () => { live.textContent = "The simulator was reset: reload the page."; });
  };
  // The first page: how many there are by now.
  const count = async () => {
    if (document.hidden) return;
    // The list opens no simulator; it is asked for as the page was.
    const asked = new URLSearchParams(location.search);
    asked.set("limit", document.querySelectorAll("[data-events]").length);
    const answer = await fetch(`/api/sims?${asked}`).catch(() => null);
    if (!answer?.ok) return;
    for (const sim of (await answer.json()).sims) {
      const cell = (name) => document.querySelector(`[data-${name}="${CSS.escape(sim.id)}"]`);
      if (!cell("events")) continue;
      cell("events").textContent = sim.eventCount;
      cell("resources").textContent = Object.values(sim.counts).reduce((sum, n) => sum + n, 0);
    }
  };
  if (document.querySelector("[data-events]")) setInterval(count, 3000);
  // Older pages stay as they are.
  if (live) listen();
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", () => navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent));
  }
})();
