// A worker in JavaScript: the queue's workers POST tasks here, signed after Standard Webhooks.

import { createHmac, timingSafeEqual } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";

const OLDEST_SECONDS = 300;

// Returns whether a request is from the queue. Packages named standardwebhooks do the same.
export function signed(key, headers, body) {
  const id = headers["webhook-id"], at = headers["webhook-timestamp"];
  if (!(Math.abs(Date.now() / 1000 - Number(at)) < OLDEST_SECONDS)) return false;
  const secret = Buffer.from(key.trim().replace(/^whsec_/, ""), "base64");
  const expected = createHmac("sha256", secret).update(`${id}.${at}.`).update(body).digest();
  return (headers["webhook-signature"] ?? "").split(" ").some((each) => {
    const given = Buffer.from(each.replace(/^v1,/, ""), "base64");
    return given.length === expected.length && timingSafeEqual(given, expected);
  });
}

// Serves handlers by their names; each gets the input, the task and a signal that fires if it is cancelled.
export async function serve(port, key, handlers) {
  const server = createServer(async (request, response) => {
    const gone = new AbortController();
    response.on("close", () => gone.abort());
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    const say = (status, found) => {
      response.writeHead(status, { "Content-Type": "application/json" });
      response.end(JSON.stringify(found));
    };
    if (!signed(key, request.headers, body)) return say(401, { problem: "not signed by the queue" });
    const task = JSON.parse(body).data;
    const handler = handlers[task.handler];
    if (handler === undefined) return say(404, { problem: `no handler ${task.handler}` });
    try {
      say(200, await handler(task.input, task, gone.signal));
    } catch (error) {
      say(500, { problem: String(error) }); // tried again, as the queue's retry says
    }
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return server;
}
