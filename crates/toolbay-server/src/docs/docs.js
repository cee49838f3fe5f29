// Renders the OpenAPI document. Everything is put in as text, never as markup: schemas and summaries of plugins are theirs.
"use strict";

const byId = (id) => document.getElementById(id);

function make(name, props = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(props)) {
    if (key === "class") element.className = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const pretty = (value) => make("pre", { tabindex: "0" }, JSON.stringify(value, null, 2));

function resolve(doc, schema, seen = new Set()) {
  if (Array.isArray(schema)) return schema.map((item) => resolve(doc, item, seen));
  if (schema === null || typeof schema !== "object") return schema;
  const prefix = "#/components/schemas/";
  if (typeof schema.$ref === "string" && schema.$ref.startsWith(prefix)) {
    const name = schema.$ref.slice(prefix.length);
    if (seen.has(name)) return { $ref: schema.$ref };
    return resolve(doc, doc.components.schemas[name] ?? {}, new Set([...seen, name]));
  }
  return Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, resolve(doc, value, seen)]));
}

function table(caption, head, rows) {
  const cells = (kind, row) => make("tr", {}, ...row.map((cell) => make(kind, kind === "th" ? { scope: "col" } : {}, cell)));
  return make("table", {}, make("caption", {}, caption), make("thead", {}, cells("th", head)),
    make("tbody", {}, ...rows.map((row) => cells("td", row))));
}

function operation(doc, method, path, op) {
  const body = make("div");
  if (op.description) body.append(make("p", {}, op.description));
  if (op.parameters?.length) {
    body.append(table("Parameters", ["Name", "In", "What"], op.parameters.map((param) => [
      make("code", {}, param.name + (param.required ? " *" : "")), param.in,
      make("div", {}, param.description ?? "", make("code", {}, " " + JSON.stringify(param.schema ?? {}))),
    ])));
  }
  for (const [media, content] of Object.entries(op.requestBody?.content ?? {})) {
    body.append(make("h4", {}, "Body, " + media));
    if (content.example !== undefined) body.append(pretty(content.example));
    if (content.schema) body.append(make("details", {}, make("summary", {}, "Schema"), pretty(resolve(doc, content.schema))));
  }
  body.append(make("h4", {}, "Answers"));
  for (const [status, response] of Object.entries(op.responses ?? {})) {
    const [media, content] = Object.entries(response.content ?? {})[0] ?? [];
    body.append(make("details", {}, make("summary", {}, make("code", {}, status), " " + response.description),
      media ? make("p", {}, media) : null,
      content?.example !== undefined ? pretty(content.example) : null,
      content?.schema ? pretty(resolve(doc, content.schema)) : null));
  }
  const simple = method === "get" && !path.includes("{") && !path.endsWith("/events") && !path.endsWith("/live");
  if (simple) {
    const shown = make("pre", { tabindex: "0", "aria-live": "polite" });
    const button = make("button", { type: "button" }, "Try it");
    button.addEventListener("click", async () => {
      try {
        const response = await fetch(path, { headers: headers() });
        const text = await response.text();
        shown.textContent = response.status + "\n" + text.slice(0, 20000);
      } catch (error) {
        shown.textContent = String(error);
      }
    });
    body.append(button, shown);
  }
  const item = make("details", { class: "operation", id: "op-" + op.operationId },
    make("summary", {}, make("span", { class: "method" }, method.toUpperCase()), make("code", {}, path), " — " + (op.summary ?? "")), body);
  item.dataset.text = [method, path, op.summary, op.operationId].join(" ").toLowerCase();
  return item;
}

function headers() {
  const key = byId("key").value.trim();
  return key ? { Authorization: "Bearer " + key } : {};
}

function show(doc) {
  byId("about").textContent = doc.info.description + " Version " + doc.info.version + ".";
  const groups = new Map(doc.tags.map((tag) => [tag.name, { tag, items: [] }]));
  for (const [path, item] of Object.entries(doc.paths)) {
    for (const [method, op] of Object.entries(item)) {
      groups.get(op.tags?.[0])?.items.push(operation(doc, method, path, op));
    }
  }
  const used = [...groups.values()].filter((group) => group.items.length);
  byId("tags").replaceChildren(...used.map(({ tag }) => make("a", { href: "#tag-" + tag.name }, tag.name)));
  byId("operations").replaceChildren(...used.map(({ tag, items }) =>
    make("section", { "aria-labelledby": "tag-" + tag.name }, make("h2", { id: "tag-" + tag.name }, tag.name),
      make("p", {}, tag.description ?? ""), ...items)));
  find();
}

function find() {
  const wanted = byId("search").value.trim().toLowerCase();
  let count = 0;
  for (const item of document.querySelectorAll("details.operation")) {
    item.hidden = !item.dataset.text.includes(wanted);
    count += item.hidden ? 0 : 1;
  }
  for (const section of document.querySelectorAll("main section")) {
    section.hidden = !section.querySelector("details.operation:not([hidden])");
  }
  byId("state").textContent = count + " operations";
}

async function load() {
  try {
    const response = await fetch("/api/v1/openapi.json", { headers: headers() });
    const doc = await response.json();
    if (!response.ok) throw new Error(doc.message ?? response.status);
    show(doc);
  } catch (error) {
    byId("state").textContent = "The document could not be loaded: " + error.message;
  }
}

byId("search").addEventListener("input", find);
byId("controls").addEventListener("submit", (event) => { event.preventDefault(); load(); });
load();
