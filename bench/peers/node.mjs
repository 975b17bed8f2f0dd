// Node's own http server:  node node.mjs PORT
import { once } from "node:events";
import { createServer } from "node:http";
import { setImmediate as immediately, setTimeout as sleep } from "node:timers/promises";

const HEADERS = { "Content-Type": "text/event-stream", "Cache-Control": "no-store" };
const watchers = new Set();

async function bench(url, response) {
  const number = (name, otherwise) => Number(url.searchParams.get(name) ?? otherwise);
  const [events, interval, burst] = [number("events", 1000), number("interval", 0), number("burst", 1)];
  const pad = "x".repeat(Math.max(0, number("size", 190) - 50));
  const begin = performance.now();
  response.writeHead(200, HEADERS);
  for (let n = 0; n < events && !response.destroyed; n++) {
    if (interval && n && n % burst === 0) {
      const wait = begin + Math.floor(n / burst) * interval * 1000 - performance.now();
      await (wait > 0 ? sleep(wait) : immediately());
    }
    // JSON.stringify writes no BigInt, and ns don't fit into a number.
    const data = `{"n":${n},"t":${process.hrtime.bigint()},"pad":${JSON.stringify(pad)}}`;
    if (!response.write(`id: ${n + 1}\ndata: ${data}\n\n`)) await Promise.race([once(response, "drain"), once(response, "close")]);
  }
  response.end("data: [DONE]\n\n");
}

function watch(response) {
  response.writeHead(200, HEADERS);
  response.write(":\n\n");
  watchers.add(response);
  response.on("close", () => watchers.delete(response));
}

async function publish(request, response) {
  const parts = [];
  for await (const part of request) parts.push(part);
  const event = `data: ${Buffer.concat(parts)}\n\n`;
  for (const watcher of watchers) watcher.write(event);
  response.writeHead(200, { "Content-Length": 0 }).end();
}

const server = createServer((request, response) => {
  const url = new URL(request.url, "http://localhost");
  if (url.pathname === "/watch") watch(response);
  else if (url.pathname === "/publish") publish(request, response);
  else bench(url, response);
});
server.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096 });
process.on("SIGTERM", () => process.exit(0));
