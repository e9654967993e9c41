// Serves two handlers, submits tasks to them, waits for them, and cancels one.

import { EventEmitter, once } from "node:events";
import { readFileSync } from "node:fs";
import { Queue } from "./galley.mjs";
import { serve } from "./handler.mjs";

const [address, key = ".galley/signing/hooks/key", port = 8480] = process.argv.slice(2);
const seen = new EventEmitter();

const server = await serve(Number(port), readFileSync(key, "utf8"), {
  count({ text }, task) {
    if (text === "" && task.attempt === 1) throw new Error("nothing to count");
    return { words: text.split(/\s+/).filter(Boolean).length, attempt: task.attempt };
  },
  async wait(_, task, signal) {
    const gone = once(signal, "abort");
    seen.emit("begun", task.id);
    await gone;
    seen.emit("gone", task.id);
  },
});

const queue = new Queue(address, "default", "words");

const first = await queue.submit("count", { text: "a task in another language" });
const { phase, result } = await queue.wait(first.id);
console.log("count:", phase, JSON.stringify(result));

const again = await queue.submit("count", { text: "" }, { retry: { backoffSeconds: 0.1 } });
console.log("count, failing once:", JSON.stringify((await queue.wait(again.id)).result));

const begun = once(seen, "begun");
const gone = once(seen, "gone");
const long = await queue.submit("wait", {});
await begun;
await queue.cancel(long.id);
await gone;
console.log("wait:", (await queue.wait(long.id)).phase);

await queue.submit("count", { text: "x" }, { lane: "urgent" }).catch((error) => console.log("refused:", error.message));

server.close();
server.closeAllConnections();
