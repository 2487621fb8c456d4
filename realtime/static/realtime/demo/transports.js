/**
 * The WebSocket's interface over plain HTTP: a response that stays open for what the server says, a POST for each thing
 * that the client says. For networks that let no WebSocket through; the client above knows nothing of it.
 */

/** @typedef {{ endpoint: string, emulation: string }} Paths */

/** What both ways have in common: who we are, what waits to be said, and how it ends. */
class EmulatedSocket {
  /** @type {(() => void) | null} */ onopen = null;
  /** @type {((event: { data: string }) => void) | null} */ onmessage = null;
  /** @type {((event: { code: number, reason: string }) => void) | null} */ onclose = null;
  /** @type {(() => void) | null} */ onerror = null;
  /** @type {{ session: string, node: string } | null} */ #session = null;
  /** @type {string[]} */ #waiting = [];
  #isBegun = false;
  #isClosed = false;
  #isPosting = false;

  /** @param {Paths} paths */
  constructor(paths) {
    this.paths = paths;
    queueMicrotask(() => this.onopen?.()); // the request leaves with the first commands
  }

  /** @param {string} frame */
  send(frame) {
    if (this.#isClosed) return;
    if (this.#isBegun) {
      this.#waiting.push(frame);
      this.#post();
    } else {
      this.#isBegun = true;
      this.begin(frame);
    }
  }

  close(code = 1000, reason = "") {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.end();
    this.onclose?.({ code, reason });
  }

  /** @param {string} text  One message. */
  take(text) {
    if (this.#isClosed) return;
    const { connect, push } = JSON.parse(text);
    if (push?.disconnect) {
      this.close(push.disconnect.code, push.disconnect.reason);
      return;
    }
    this.onmessage?.({ data: text });
    if (connect) {
      this.#session = connect;
      this.#post();
    }
  }

  /** Requests may overtake each other, so the next one leaves when the one before was taken. */
  async #post() {
    if (this.#isPosting || !this.#session || !this.#waiting.length || this.#isClosed) return;
    this.#isPosting = true;
    const { session, node } = this.#session;
    const data = this.#waiting.splice(0).join("\n");
    try {
      const response = await fetch(this.paths.emulation, { method: "POST", body: JSON.stringify({ session, node, data }) });
      if (!response.ok) this.close(1006, `commands were answered with ${response.status}`);
    } catch {
      this.close(1006, "commands were not sent");
    }
    this.#isPosting = false;
    this.#post();
  }

  /** @param {string} _frame  The first commands. */
  begin(_frame) {}

  end() {}
}

/** HTTP streaming: a POST whose response stays open. */
export class HttpStreamSocket extends EmulatedSocket {
  #controller = new AbortController();

  /** @param {string} frame */
  async begin(frame) {
    try {
      const response = await fetch(this.paths.endpoint, { method: "POST", body: frame, signal: this.#controller.signal });
      if (!response.ok || !response.body) throw new Error(`answered with ${response.status}`);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = ""; ; ) {
        const { done, value } = await reader.read();
        if (done) break;
        const lines = (rest + value).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) this.take(line);
      }
      this.close(1006, "the stream ended");
    } catch (error) {
      this.close(1006, String(error));
    }
  }

  end() {
    this.#controller.abort();
  }
}

/** Server-Sent Events: the browser's own reader of streams. */
export class SseSocket extends EmulatedSocket {
  /** @type {EventSource | null} */ #source = null;

  /** @param {string} frame */
  begin(frame) {
    const source = new EventSource(`${this.paths.endpoint}?${new URLSearchParams({ cf_connect: frame })}`);
    source.onmessage = ({ data }) => this.take(data);
    source.onerror = () => this.close(1006, "the stream ended"); // or it would connect again by itself
    this.#source = source;
  }

  end() {
    this.#source?.close();
  }
}
