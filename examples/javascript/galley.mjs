// What this example uses of the HTTP API, as /openapi.json describes it.

export class Queue {
  constructor(address, namespace, name, token = "") {
    this.url = `${address}/api/v1/namespaces/${namespace}/queues/${name}`;
    this.headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
  }

  submit(handler, input, options = {}) {
    return this.#ask("POST", "/tasks", { handler, input, ...options });
  }

  // Waits until the task has ended: each request waits up to 30 s.
  async wait(id) {
    for (;;) {
      const task = await this.#ask("GET", `/tasks/${id}/wait?seconds=30`);
      if (["Succeeded", "Failed", "Cancelled"].includes(task.phase)) return task;
    }
  }

  get(id) {
    return this.#ask("GET", `/tasks/${id}`);
  }

  cancel(id) {
    return this.#ask("POST", `/tasks/${id}/cancel`);
  }

  async #ask(method, path, body) {
    const answer = await fetch(this.url + path, { method, headers: this.headers, body: body && JSON.stringify(body) });
    const found = await answer.json();
    // Every error is a problem document (RFC 9457).
    if (!answer.ok) throw new Error(`${found.reason}: ${found.detail}; ${found.hint ?? ""}`);
    return found;
  }
}
