// Lists and calls Toolbay's tools with the official TypeScript client and with the command line of the MCP Inspector, over
// stdio and over streamable HTTP, with a key for each tenant.
//
//     node test_mcp_client.mjs TOOLBAY_BINARY TOOLS_FOLDER INSPECTOR_SCRIPT
//
// Prints one line a check and the counts at the end; the exit status is 0 where every check passed.

import { execFile, spawn } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [toolbay, tools, inspector] = process.argv.slice(2);
const run = promisify(execFile);
const KEYS = { acme: "acme-key-0123456789", globex: "globex-key-0123456789" };
const SECRETS = { acme: "xyzzy", globex: "plugh" };

let passed = 0;
let failed = 0;
function check(name, holds, seen) {
  holds ? (passed += 1) : (failed += 1);
  console.log(holds ? `ok      ${name}` : `FAILED  ${name}: ${JSON.stringify(seen)}`);
}
async function section(name, body) {
  try {
    await body();
  } catch (error) {
    check(`${name}: got to its end`, false, String(error));
  }
}

// A tool that tenants have for themselves: of the same name, with another secret.
const scratch = mkdtempSync(join(tmpdir(), "toolbay-"));
const plugin = (secret) => `//! Keeps a secret, for one tenant only.
const PLUGIN = #{ name: "secret", version: "1.0.0", author: "The tests", description: "Keeps a secret",
    tools: #{ tell: #{ description: "Tells the secret",
        parameters: #{ type: "object", properties: #{}, additionalProperties: false } } } };
fn tell(args, cx) { #{ told: "${secret}" } }
`;
const own = Object.entries(SECRETS).flatMap(([tenant, secret]) => {
  const path = join(scratch, `${tenant}.rhai`);
  writeFileSync(path, plugin(secret));
  return ["--tenant-tools", `${tenant}=${path}`];
});
const shared = ["--tools", tools, ...own, "--isolation", "in-process"];
const keys = join(scratch, "keys.toml");
writeFileSync(keys, Object.entries(KEYS).map(([tenant, key]) => `[[keys]]\ntenant = "${tenant}"\nkey = "${key}"\n`).join(""));

/** Lists and calls as any client would. */
async function converse(name, tenant, transport) {
  const client = new Client({ name: "test", version: "1" });
  await client.connect(transport);
  const { tools: listed } = await client.listTools();
  const names = listed.map((tool) => tool.name);
  check(`${name}: the calculator is listed`, names.includes("calculator.add"), names);
  const sum = await client.callTool({ name: "calculator.add", arguments: { a: 2, b: 3 } });
  check(`${name}: a call gives its result`, !sum.isError && JSON.stringify(sum).includes("5"), sum);
  const wrong = await client.callTool({ name: "calculator.add", arguments: { a: "two" } });
  check(`${name}: wrong arguments are a result to repair from`, wrong.isError === true && wrong.content[0].text.startsWith("InvalidArguments"), wrong);
  const told = await client.callTool({ name: "secret.tell", arguments: {} });
  check(`${name}: the tenant's own tool answers`, told.structuredContent?.told === SECRETS[tenant], told);
  const others = Object.values(SECRETS).filter((secret) => secret !== SECRETS[tenant]);
  check(`${name}: nothing of another tenant is in it`, !others.some((secret) => JSON.stringify([listed, told]).includes(secret)), told);
  await client.close();
}

for (const tenant of Object.keys(KEYS)) {
  await section(`TypeScript, stdio, ${tenant}`, () =>
    converse(`TypeScript, stdio, ${tenant}`, tenant, new StdioClientTransport({ command: toolbay, args: ["mcp", "--tenant", tenant, ...shared], stderr: "ignore" })));
}

const server = spawn(toolbay, ["serve", "--port", "0", "--keys", keys, ...shared], { stdio: ["ignore", "ignore", "pipe"] });
try {
  const url = await new Promise((resolve, reject) => {
    let said = "";
    const late = setTimeout(() => reject(new Error(`the server did not start: ${said}`)), 60_000);
    server.stderr.on("data", (data) => {
      said += data;
      const found = said.match(/listening on (http\S+)/);
      if (found) {
        clearTimeout(late);
        resolve(found[1]);
      }
    });
  });
  for (const [tenant, key] of Object.entries(KEYS)) {
    const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers: { Authorization: `Bearer ${key}` } } });
    await section(`TypeScript, HTTP, ${tenant}`, () => converse(`TypeScript, HTTP, ${tenant}`, tenant, transport));
  }
  await section("TypeScript, HTTP, no key", async () => {
    const client = new Client({ name: "test", version: "1" });
    const refused = await client.connect(new StreamableHTTPClientTransport(new URL(url))).then(() => false, () => true);
    check("TypeScript, HTTP: without a key there is no connection", refused);
  });

  const inspect = async (...options) => {
    const { stdout } = await run(process.execPath, [inspector, "--cli", ...options], { timeout: 60_000, maxBuffer: 1 << 24, env: { ...process.env, HOME: scratch } });
    return stdout;
  };
  const ways = Object.entries(KEYS).flatMap(([tenant, key]) => [
    [`HTTP, ${tenant}`, tenant, [url, "--transport", "http", "--header", `Authorization: Bearer ${key}`]],
    [`stdio, ${tenant}`, tenant, [toolbay, "mcp", "--tenant", tenant, ...shared]],
  ]);
  for (const [name, tenant, way] of ways) {
    await section(`Inspector, ${name}`, async () => {
      // A server's own options stand behind `--`, or the Inspector would take them.
      const target = way[0] === toolbay ? ["--transport", "stdio", "--", ...way] : way;
      const listed = await inspect("--method", "tools/list", ...target);
      check(`Inspector, ${name}: the calculator is listed`, listed.includes("calculator.add"), listed.slice(0, 400));
      const told = await inspect("--method", "tools/call", "--tool-name", "secret.tell", ...target);
      check(`Inspector, ${name}: the tenant's own tool answers`, told.includes(SECRETS[tenant]), told.slice(0, 400));
      const others = Object.values(SECRETS).filter((secret) => secret !== SECRETS[tenant]);
      check(`Inspector, ${name}: nothing of another tenant is in it`, !others.some((secret) => (listed + told).includes(secret)));
    });
  }
} finally {
  server.kill();
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
