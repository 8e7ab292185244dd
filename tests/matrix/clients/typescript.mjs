// SPDX-License-Identifier: Apache-2.0
// The two TypeScript clients: visit servers and tell on stdout what they saw. See tests/matrix/script.py for both formats.
//
// Usage: NODE_MODULES=... node typescript.mjs sdk|legacy|auto < visits
// `sdk` is @modelcontextprotocol/sdk; `legacy` and `auto` are @modelcontextprotocol/client in its two modes.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const MS = 20_000;
const flavour = process.argv[2];
const resolve = createRequire(`${process.env.NODE_MODULES}/`).resolve;
const load = (name) => import(pathToFileURL(resolve(name)));

let Client, Transport, handle;
if (flavour === "sdk") {
  ({ Client } = await load("@modelcontextprotocol/sdk/client/index.js"));
  ({ StreamableHTTPClientTransport: Transport } = await load("@modelcontextprotocol/sdk/client/streamableHttp.js"));
  const types = await load("@modelcontextprotocol/sdk/types.js");
  const schemas = {
    "sampling/createMessage": types.CreateMessageRequestSchema,
    "elicitation/create": types.ElicitRequestSchema,
    "roots/list": types.ListRootsRequestSchema,
    "notifications/message": types.LoggingMessageNotificationSchema,
    "notifications/resources/updated": types.ResourceUpdatedNotificationSchema,
    "notifications/tools/list_changed": types.ToolListChangedNotificationSchema,
  };
  handle = (method) => schemas[method];
} else {
  ({ Client, StreamableHTTPClientTransport: Transport } = await load("@modelcontextprotocol/client"));
  handle = (method) => method;
}

function answer(field) {
  if ("default" in field) return field.default;
  if (field.enum || field.oneOf) return (field.enum ?? field.oneOf.map((each) => each.const))[0];
  return { string: "said", boolean: true, array: [], integer: 7, number: 7 }[field.type];
}

class Visitor {
  constructor(visit) {
    this.visit = visit;
    this.heard = [];
    this.waiting = [];
    this.logged = [];
  }

  hear(what) {
    const next = this.waiting.shift();
    next ? next(what) : this.heard.push(what);
  }

  async news(what) {
    for (;;) {
      const told = this.heard.length ? this.heard.shift() : await new Promise((next) => this.waiting.push(next));
      if (told[0] === what) return told;
    }
  }

  prepared() {
    const capabilities = { sampling: {}, elicitation: { form: {}, url: {} }, roots: {} };
    const more = flavour === "auto" ? { versionNegotiation: { mode: "auto" } } : {};
    const client = new Client({ name: "matrix", version: "1" }, { capabilities, ...more });
    client.setRequestHandler(handle("sampling/createMessage"), async ({ params }) => {
      const said = [params.messages.at(-1).content].flat()[0].text;
      return { role: "assistant", model: "none", content: { type: "text", text: `sampled: ${said}` } };
    });
    client.setRequestHandler(handle("elicitation/create"), async ({ params }) => {
      const fields = Object.entries(params.requestedSchema?.properties ?? {});
      return { action: "accept", content: Object.fromEntries(fields.map(([name, field]) => [name, answer(field)])) };
    });
    client.setRequestHandler(handle("roots/list"), async () => ({ roots: [{ uri: "file:///matrix", name: "matrix" }] }));
    client.setNotificationHandler(handle("notifications/message"), ({ params }) => {
      this.logged.push([params.level, params.data]);
    });
    client.setNotificationHandler(handle("notifications/resources/updated"), ({ params }) => {
      this.hear(["updated", params.uri]);
    });
    client.setNotificationHandler(handle("notifications/tools/list_changed"), () => this.hear(["changed", "tools"]));
    return client;
  }

  async run() {
    this.client = this.prepared();
    const transport = new Transport(new URL(this.visit.url), { requestInit: { headers: this.visit.headers } });
    await this.client.connect(transport, { timeout: MS });
    this.modern = this.client.getProtocolEra?.() === "modern";
    const told = [];
    for (const step of this.visit.steps) told.push(await this.step(step));
    const version = this.client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion;
    const [capabilities, instructions] = [this.client.getServerCapabilities(), this.client.getInstructions() ?? null];
    await transport.terminateSession?.();
    await this.client.close();
    return { version, capabilities, instructions, told };
  }

  async step(step) {
    this.logged = [];
    let told;
    try {
      told = await within(this[step.do](step));
    } catch (error) {
      told = { error: [error.code ?? error.name, error.message] };
    }
    return this.logged.length ? { ...told, logged: this.logged } : told;
  }

  async pages(ask, field) {
    const listed = [];
    let cursor;
    do {
      const page = await ask(cursor === undefined ? {} : { cursor });
      listed.push(...page[field]);
      cursor = page.nextCursor;
    } while (cursor !== undefined);
    return { listed };
  }

  tools = () => this.pages((params) => this.client.listTools(params), "tools");
  prompts = () => this.pages((params) => this.client.listPrompts(params), "prompts");
  resources = () => this.pages((params) => this.client.listResources(params), "resources");
  templates = () => this.pages((params) => this.client.listResourceTemplates(params), "resourceTemplates");

  tool(params, options) {
    return flavour === "sdk" ? this.client.callTool(params, undefined, options) : this.client.callTool(params, options);
  }

  async call({ name, arguments: given }) {
    const progress = [];
    const onprogress = (told) => progress.push([told.progress, told.total ?? null, told.message ?? null]);
    return { result: await this.tool({ name, arguments: given }, { onprogress }), progress };
  }

  get = async ({ name, arguments: given }) => ({ result: await this.client.getPrompt({ name, arguments: given }) });
  read = async ({ uri }) => ({ result: await this.client.readResource({ uri }) });
  level = async ({ level }) => ({ result: await this.client.setLoggingLevel(level) });

  async complete({ prompt, argument }) {
    return { result: await this.client.complete({ ref: { type: "ref/prompt", name: prompt }, argument }) };
  }

  async cancel({ name, arguments: given }) {
    const leaving = new AbortController();
    let begun;
    const started = new Promise((done) => (begun = done));
    const call = this.tool({ name, arguments: given }, { signal: leaving.signal, onprogress: () => begun() });
    call.catch(() => {});
    await started;
    leaving.abort("enough");
    return { cancelled: true };
  }

  async subscribe({ uri, by, arguments: given = {} }) {
    const stream = this.modern ? await this.client.listen({ resourceSubscriptions: [uri] }) : null;
    if (!stream) await this.client.subscribeResource({ uri });
    await this.tool({ name: by, arguments: given });
    const heard = await this.news("updated");
    await (stream ? stream.close() : this.client.unsubscribeResource({ uri }));
    return { heard };
  }

  async changed({ by }) {
    const stream = this.modern ? await this.client.listen({ toolsListChanged: true }) : null;
    await this.tool({ name: by, arguments: {} });
    const heard = await this.news("changed");
    await stream?.close();
    return { heard };
  }
}

function within(promise) {
  let timer;
  const late = new Promise((_, fail) => (timer = setTimeout(() => fail(new Error(`nothing within ${MS} ms`)), MS)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const told = {};
for (const visit of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    told[visit.key] = await new Visitor(visit).run();
  } catch (error) {
    told[visit.key] = { failed: `${error.name}: ${error.message}` };
  }
}
process.stdout.write(JSON.stringify(told), () => process.exit(0));
