/**
 * Tidewire's client for browsers (and Node, Deno, Bun): one ES module, no build step, no dependencies.
 *
 *     import { Tidewire } from "tidewire";
 *
 *     const tidewire = new Tidewire("/connection/websocket", { getToken: fetchToken });
 *     const lobby = tidewire.subscribe("chat:lobby");
 *     lobby.on("publication", ({ data }) => show(data));
 *     tidewire.connect();
 *     await lobby.publish({ text: "hello" });
 *
 * It speaks version 2 of Centrifugo's client protocol in JSON. Two machines, each with three states:
 *
 *     Tidewire       disconnected ── connect() ───▶ connecting ⇄ connected
 *     Subscription   unsubscribed ── subscribe() ─▶ subscribing ⇄ subscribed
 *
 * Losing the connection moves both from the right to the middle. The client dials again, after a random and growing
 * pause; each subscription then names the last offset it saw, and the server hands it what it missed before anything
 * new. Back to the left lead only disconnect(), unsubscribe(), and answers of the server that a retry cannot better.
 * An event is named after the state that begins, so `on("connected", …)` is all there is to learn.
 *
 * Three classes: `Wire` is one WebSocket and knows nothing of what is said over it; `Tidewire` and `Subscription` are
 * the machines. Late callbacks are the classic fault of such code. Here a closed `Wire` is silent for ever, and what a
 * subscription awaits carries the attempt it belongs to.
 *
 * @module tidewire
 */

/** What is not terminal is tried again. Local codes stay below 3000, the server's are 3000-4999. */
const CALLED = 0;
const CONNECTION_LOST = 1;
const NO_PING = 2;
const SUBSCRIBE_TIMEOUT = 3;
const UNSUBSCRIBE_FAILED = 4;
const UNAUTHORIZED = 5;
const TIMEOUT = 6;
const NOT_ACTIVE = 7;
const TOKEN_EXPIRED = 109;
const STATE_INVALIDATED = 3014;
const SUBSCRIPTION_INVALIDATED = 2502;
const MESSAGE_TOO_BIG = 1009;

/** An epoch no stream has: the server answers `recovered: false`, and the application loads its state anew. */
const NO_SUCH_EPOCH = "_";

/** UTF-16 units in one frame: at most 3 bytes each, so that a batch stays under the server's 64 KiB. */
const MAX_FRAME_LENGTH = 16384;

/** Milliseconds; a longer setTimeout (24.8 days) fires at once. */
const MAX_DELAY = 2 ** 31 - 1;

/**
 * @typedef {{ offset: number, epoch: string }} Position  Where in a channel's stream.
 * @typedef {{ code: number, reason: string }} Cause      Why a state begins.
 * @typedef {{ user: string, client: string, conn_info?: any, chan_info?: any }} ClientInfo
 *
 * @typedef {object} Publication
 * @property {string} channel
 * @property {any} data
 * @property {boolean} recovered        Missed earlier, delivered now.
 * @property {number} [offset]          In channels that keep history; rises by one.
 * @property {ClientInfo} [info]        The publisher, if it was a client and not the server.
 * @property {Record<string, string>} [tags]
 *
 * @typedef {object} Subscribed
 * @property {string} channel
 * @property {any} [data]
 * @property {boolean} wasRecovering    The position of an earlier subscription was sent along.
 * @property {boolean} recovered        Nothing was missed, or all that was missed follows as publications.
 * @property {Position | null} position
 *
 * @typedef {{ channel: string, info: ClientInfo }} Presence
 * @typedef {{ limit?: number, since?: Position, reverse?: boolean }} HistoryOptions
 * @typedef {{ publications: Publication[], offset: number, epoch: string }} History
 *
 * @typedef {object} ClientOptions
 * @property {string} [token]                           A connection JWT.
 * @property {() => Promise<string>} [getToken]         Called for the first token, and before each expires.
 * @property {any} [data]                               For the application's connect handler.
 * @property {string} [name]
 * @property {number} [minDelay]                        Milliseconds before dialling again: at least 500
 * @property {number} [maxDelay]                        and at most 20,000.
 * @property {number} [timeout]                         Milliseconds for the answer to a command, 5,000.
 * @property {number} [maxSilence]                      Milliseconds a ping, or the socket itself, may be late, 10,000.
 * @property {any} [websocket]                          The WebSocket class, where there is no global one.
 *
 * @typedef {object} SubscriptionOptions
 * @property {string} [token]                           A subscription JWT.
 * @property {(channel: string) => Promise<string>} [getToken]
 * @property {any} [data]                               For the application's subscribe handler.
 * @property {Position} [since]                         Deliver what was published after this position.
 * @property {boolean} [recoverable]                    Ask for recovery (a namespace may force it).
 * @property {boolean} [positioned]
 * @property {boolean} [joinLeave]                      Ask for "join" and "leave".
 * @property {object} [filter]                          Tags filter: only publications that pass it.
 * @property {boolean} [delta]                          Ask for patches where a document changes a little; not with a filter.
 *
 * @typedef {object} Traffic
 * @property {number} documents         Bytes of all documents that were delivered
 * @property {number} received          and what of them came over the wire.
 * @property {number} patches           How many came as patches.
 *
 * @typedef {object} ClientEvents
 * @property {Cause} connecting
 * @property {{ client: string, version: string, data?: any, ttl?: number }} connected
 * @property {Cause} disconnected
 * @property {{ attempt: number, delay: number }} retry    The next dial is due in `delay` milliseconds.
 * @property {{ ttl?: number }} refreshed                  A new token was accepted.
 * @property {Error} error
 * @property {Subscribed} subscribed                       This and the rest: subscriptions that the server made.
 * @property {Cause & { channel: string }} unsubscribed
 * @property {Publication} publication
 * @property {Presence} join
 * @property {Presence} leave
 *
 * @typedef {object} SubscriptionEvents
 * @property {Cause} subscribing
 * @property {Subscribed} subscribed
 * @property {Cause} unsubscribed
 * @property {Publication} publication
 * @property {Presence} join
 * @property {Presence} leave
 * @property {Error} error
 */

/** A command failed: the server said so, or no answer came. */
export class TidewireError extends Error {
  /**
   * @param {number} code
   * @param {string} message
   * @param {boolean} [temporary]  A retry may help.
   */
  constructor(code, message, temporary = code < 100) {
    super(message);
    this.name = "TidewireError";
    this.code = code;
    this.temporary = temporary;
  }
}

/** For `getToken` to throw: this visitor gets no token, ask no more. */
export class UnauthorizedError extends TidewireError {
  constructor(message = "unauthorized") {
    super(UNAUTHORIZED, message, false);
  }
}

/** @param {TidewireError} error */
const isWorthRetrying = (error) => error.temporary || error.code === TOKEN_EXPIRED;

/** @param {number} code */
const isTerminal = (code) =>
  code === MESSAGE_TOO_BIG || (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000);

/**
 * Full jitter: a crowd that lost its server at one moment doesn't come back at one moment.
 * @param {number} attempt
 * @param {{ minDelay: number, maxDelay: number }} options
 */
const backoff = (attempt, { minDelay, maxDelay }) =>
  Math.min(maxDelay, minDelay + Math.random() * Math.min(maxDelay, minDelay * 2 ** attempt));

/** @param {number} min @param {number} max */
const between = (min, max) => min + Math.random() * (max - min);

/** @param {string} channel @param {any} wire @param {boolean} recovered @returns {Publication} */
const publicationOf = (channel, wire, recovered) => ({ ...wire, channel, recovered });

/** @typedef {(error: TidewireError | null, result?: any) => void} Callback */

/**
 * One WebSocket: commands out in batches, replies back to their callbacks, pings answered, silence noticed.
 *
 * `onClose` is called once, whoever closes, and nothing after it.
 */
class Wire {
  /** @type {any} */ #socket;
  #handlers;
  #options;
  #lastId = 0;
  /** @type {string[]} */ #batch = [];
  /** @type {Map<number, { callback: Callback, onLost?: (error: TidewireError) => void, timer: any }>} */
  #pending = new Map();
  #lastHeard = 0;
  #sendsPong = false;
  /** @type {any} */ #watch = 0;
  isOpen = false;

  /**
   * @param {any} socket
   * @param {{ timeout: number, maxSilence: number }} options
   * @param {{ onOpen(): void, onPush(push: any): void, onClose(code: number, reason: string): void }} handlers
   */
  constructor(socket, options, handlers) {
    this.#socket = socket;
    this.#options = options;
    this.#handlers = handlers;
    this.#watch = setTimeout(() => this.close(CONNECTION_LOST, "no connection"), options.maxSilence);
    socket.onopen = () => {
      clearTimeout(this.#watch);
      this.isOpen = true;
      handlers.onOpen();
    };
    socket.onmessage = (/** @type {{ data: any }} */ event) => this.#receive(String(event.data));
    socket.onclose = (/** @type {Cause} */ event) => this.close(event.code, event.reason);
    socket.onerror = () => {}; // a close always follows, and tells as much
  }

  /**
   * Send a command; `callback` gets its reply while the frame is still being read. A promise would be settled only
   * after the pushes behind the reply in the same frame, which belong to the state that the reply begins.
   *
   * @param {string} method
   * @param {object} params
   * @param {Callback} callback
   * @param {(error: TidewireError) => void} [onLost]  Called instead if the wire closes before the reply.
   */
  call(method, params, callback, onLost) {
    const id = ++this.#lastId;
    const timer = setTimeout(() => {
      this.#pending.delete(id);
      callback(new TidewireError(TIMEOUT, `no answer to ${method}`));
    }, this.#options.timeout);
    this.#pending.set(id, { callback, onLost, timer });
    this.#send({ id, [method]: params });
  }

  /**
   * @param {number} pingSeconds  The server's interval; 0: it sends none.
   * @param {boolean} sendsPong
   */
  expectPings(pingSeconds, sendsPong) {
    this.#sendsPong = sendsPong;
    if (!pingSeconds) return;
    const patience = pingSeconds * 1000 + this.#options.maxSilence;
    const check = () => {
      const left = this.#lastHeard + patience - Date.now();
      if (left <= 0) this.close(NO_PING, "no ping");
      else this.#watch = setTimeout(check, left);
    };
    check();
  }

  /** @param {number} code @param {string} reason */
  close(code, reason) {
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = null;
    this.isOpen = false;
    clearTimeout(this.#watch);
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    for (const { timer, onLost } of this.#pending.values()) {
      clearTimeout(timer);
      onLost?.(new TidewireError(CONNECTION_LOST, "connection lost"));
    }
    this.#handlers.onClose(code, reason);
  }

  /** @param {object} command */
  #send(command) {
    if (this.#batch.push(JSON.stringify(command)) === 1) queueMicrotask(() => this.#flush());
  }

  #flush() {
    let frame = "";
    for (const command of this.#batch.splice(0)) {
      if (frame && frame.length + command.length >= MAX_FRAME_LENGTH) {
        this.#socket?.send(frame);
        frame = "";
      }
      frame += frame ? `\n${command}` : command;
    }
    this.#socket?.send(frame);
  }

  /** @param {string} frame */
  #receive(frame) {
    this.#lastHeard = Date.now();
    for (const line of frame.split("\n")) {
      if (!this.#socket) return; // a listener has closed it
      let reply;
      try {
        reply = JSON.parse(line);
      } catch {
        this.close(CONNECTION_LOST, "malformed message");
        return;
      }
      if (reply.id) this.#settle(reply);
      else if (reply.push) this.#handlers.onPush(reply.push);
      else if (this.#sendsPong) this.#send({});
    }
  }

  /** @param {{ id: number, error?: { code: number, message: string, temporary?: boolean } }} reply */
  #settle({ id, error, ...results }) {
    const pending = this.#pending.get(id);
    if (!pending) return; // it came after its timeout
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    if (error) pending.callback(new TidewireError(error.code, error.message, error.temporary));
    else pending.callback(null, Object.values(results)[0] ?? {});
  }
}

/** A JWT, how to get the next one, and the timer that does so in time. */
class Credential {
  #getToken;
  /** @type {any} */ #timer = 0;

  /** @param {string} token @param {(() => Promise<string>) | undefined} getToken */
  constructor(token, getToken) {
    this.token = token;
    this.#getToken = getToken;
  }

  /** There is no token, and one can be had. */
  get isWanted() {
    return !this.token && !!this.#getToken;
  }

  /** Nothing more can be done about an expired token. */
  get isFinal() {
    return !this.#getToken;
  }

  async fetch() {
    this.token = (await this.#getToken?.()) ?? "";
    if (!this.token) throw new UnauthorizedError();
    return this.token;
  }

  /** @param {{ expires?: boolean, ttl?: number }} result  @param {() => void} renew */
  renewAfter({ expires, ttl = 0 }, renew) {
    this.cancel();
    if (expires && !this.isFinal) this.#timer = setTimeout(renew, Math.min(ttl * 1000, MAX_DELAY));
  }

  /** @param {() => void} renew  @param {number} min  @param {number} max  Seconds. */
  renewBetween(min, max, renew) {
    this.cancel();
    this.#timer = setTimeout(renew, between(min, max) * 1000);
  }

  cancel() {
    clearTimeout(this.#timer);
  }
}

/**
 * Listeners, and one of three states.
 * @template {Record<string, any>} Events
 */
class Machine {
  /** @type {Map<string, Set<(detail: any) => void>>} */ #listeners = new Map();
  #rest;
  #goal;

  /** @param {keyof Events & string} rest  @param {keyof Events & string} goal */
  constructor(rest, goal) {
    this.#rest = rest;
    this.#goal = goal;
    /** @type {keyof Events & string} */
    this.state = rest;
  }

  /**
   * Call `listener` on every `event`; the function returned ends that.
   *
   * @template {keyof Events & string} E
   * @param {E} event
   * @param {(detail: Events[E]) => void} listener
   * @returns {() => void}
   */
  on(event, listener) {
    const listeners = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /**
   * Resolve once connected (subscribed); reject when that is given up, or doesn't happen in `timeout` milliseconds.
   * @param {number} [timeout]
   * @returns {Promise<void>}
   */
  ready(timeout = 5000) {
    if (this.state === this.#goal) return Promise.resolve();
    if (this.state === this.#rest) return Promise.reject(new TidewireError(NOT_ACTIVE, this.#rest));
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => finish(new TidewireError(TIMEOUT, `not ${this.#goal}`)), timeout);
      const ends = [
        this.on(this.#goal, () => finish(null)),
        this.on(this.#rest, ({ code, reason }) => finish(new TidewireError(code, reason))),
      ];
      const finish = (/** @type {Error | null} */ error) => {
        clearTimeout(timer);
        for (const end of ends) end();
        if (error) reject(error);
        else resolve();
      };
    });
  }

  /**
   * @template {keyof Events & string} E
   * @param {E} state
   * @param {Events[E]} detail
   * @protected
   */
  enter(state, detail) {
    this.state = state;
    this.emit(state, detail);
  }

  /**
   * A listener's exception is reported like that of a DOM listener; the messages behind are read all the same.
   *
   * @template {keyof Events & string} E
   * @param {E} event
   * @param {Events[E]} detail
   * @protected
   */
  emit(event, detail) {
    for (const listener of [...(this.#listeners.get(event) ?? [])]) {
      try {
        listener(detail);
      } catch (error) {
        setTimeout(() => {
          throw error;
        });
      }
    }
  }
}

/**
 * What a subscription may use of its client.
 *
 * @typedef {object} Port
 * @property {Wire | null} wire  Open, with the connect command sent; else null.
 * @property {{ minDelay: number, maxDelay: number, timeout: number }} options
 * @property {(code: number, reason: string) => void} restart
 * @property {(method: string, params: object) => Promise<any>} call
 * @property {() => void} remove
 */

/**
 * One channel, as this client asked for it. Made by `tidewire.subscribe()`.
 * @extends {Machine<SubscriptionEvents>}
 */
export class Subscription extends Machine {
  #port;
  #options;
  #credential;
  #attempts = 0;
  /** Whatever belongs to an older attempt is void. @type {object} */ #attempt = {};
  #isSent = false;
  /** @type {any} */ #retry = 0;
  /** @type {Position | null} */ #position;
  #hasDelta = false;
  /** @type {Uint8Array} */ #base = new Uint8Array();
  /** Counted where there are deltas. @type {Traffic} */ traffic = { documents: 0, received: 0, patches: 0 };

  /** @param {string} channel  @param {SubscriptionOptions} options  @param {Port} port */
  constructor(channel, options, port) {
    super("unsubscribed", "subscribed");
    const { token = "", getToken, since = null } = options;
    this.channel = channel;
    this.#port = port;
    this.#options = options;
    this.#credential = new Credential(token, getToken && (() => getToken(channel)));
    this.#position = since;
  }

  /** The last publication seen, where the channel can be recovered. */
  get position() {
    return this.#position && { ...this.#position };
  }

  subscribe() {
    if (this.state !== "unsubscribed") return;
    this.enter("subscribing", { code: CALLED, reason: "subscribe called" });
    this.join();
  }

  unsubscribe() {
    if (this.state === "unsubscribed") return;
    const { wire } = this.#port;
    if (wire && this.#isSent) {
      wire.call("unsubscribe", { channel: this.channel }, (error) => {
        if (error) this.#port.restart(UNSUBSCRIBE_FAILED, "unsubscribe failed");
      });
    }
    this.#stop(CALLED, "unsubscribe called");
  }

  /** Unsubscribe, and let `tidewire.subscribe()` make a new one for this channel. */
  remove() {
    this.unsubscribe();
    this.#port.remove();
  }

  /** @param {any} data */
  async publish(data) {
    await this.#ask("publish", { data });
  }

  /** @param {HistoryOptions} [options]  Without `limit` only the stream's position. @returns {Promise<History>} */
  async history(options = {}) {
    return historyOf(this.channel, await this.#ask("history", options));
  }

  /** @returns {Promise<Record<string, ClientInfo>>}  By client id. */
  async presence() {
    return (await this.#ask("presence", {})).presence;
  }

  /** @returns {Promise<{ num_clients: number, num_users: number }>} */
  presenceStats() {
    return this.#ask("presence_stats", {});
  }

  /**
   * Send the subscribe command, if there is a connection to send it on.
   * @package
   */
  async join() {
    const { wire } = this.#port;
    if (!wire || this.state !== "subscribing") return;
    clearTimeout(this.#retry);
    const attempt = (this.#attempt = {});
    const isVoid = () => this.#attempt !== attempt || !wire.isOpen;
    if (this.#credential.isWanted) {
      try {
        await this.#credential.fetch();
      } catch (error) {
        if (!isVoid()) this.#refuse(asError(error));
        return;
      }
      if (isVoid()) return;
    }
    this.#isSent = true;
    wire.call("subscribe", this.#request(), (error, result) => {
      if (isVoid()) return;
      if (error) this.#refuse(error);
      else this.#accept(result);
    });
  }

  /**
   * The connection is gone.
   * @param {Cause} cause
   * @package
   */
  lose(cause) {
    this.#standBy();
    if (this.state === "subscribed") this.enter("subscribing", cause);
  }

  /**
   * Forget position and token: the server holds that neither is worth anything now.
   * @package
   */
  invalidate() {
    this.#credential.token = "";
    if (this.#position) this.#position = { offset: 0, epoch: NO_SUCH_EPOCH };
  }

  /**
   * @param {any} push
   * @package
   */
  receive({ pub, join, leave, unsubscribe }) {
    if (unsubscribe) this.#expel(unsubscribe);
    else if (this.state !== "subscribed") return;
    else if (pub) this.#deliver(pub, false);
    else if (join) this.emit("join", { channel: this.channel, info: join.info });
    else if (leave) this.emit("leave", { channel: this.channel, info: leave.info });
  }

  #request() {
    const { data, recoverable, positioned, joinLeave, filter } = this.#options;
    const delta = this.#options.delta ? "fossil" : undefined;
    const recovery = this.#position && { recover: true, ...this.#position };
    const token = this.#credential.token || undefined;
    return { channel: this.channel, token, data, recoverable, positioned, join_leave: joinLeave, tf: filter, delta, ...recovery };
  }

  /** @param {any} result */
  #accept(result) {
    const attempt = this.#attempt;
    this.#attempts = 0;
    this.#position = positionOf(result);
    this.#hasDelta = !!result.delta;
    this.#credential.renewAfter(result, () => this.#refresh());
    this.enter("subscribed", subscribedOf(this.channel, result));
    for (const pub of result.publications ?? []) {
      if (this.#attempt !== attempt) return; // a listener has unsubscribed
      this.#deliver(pub, true);
    }
  }

  /** @param {TidewireError} error */
  #refuse(error) {
    if (error.code === TOKEN_EXPIRED) this.#credential.token = "";
    if (error.code === TIMEOUT) this.#port.restart(SUBSCRIBE_TIMEOUT, "subscribe timeout");
    else if (!isWorthRetrying(error) || (error.code === TOKEN_EXPIRED && this.#credential.isFinal)) {
      this.#stop(error.code, error.message);
    } else {
      this.#standBy();
      this.#retry = setTimeout(() => this.join(), backoff(this.#attempts++, this.#port.options));
      this.emit("error", error);
    }
  }

  /** @param {Cause} cause */
  #expel(cause) {
    if (this.state === "unsubscribed") return;
    if (cause.code < 2500) {
      this.#stop(cause.code, cause.reason);
      return;
    }
    if (cause.code === SUBSCRIPTION_INVALIDATED) this.invalidate();
    this.#standBy();
    this.enter("subscribing", cause);
    this.join();
  }

  /** @param {any} pub  @param {boolean} recovered */
  #deliver(pub, recovered) {
    if (this.#hasDelta) {
      try {
        pub = this.#documentOf(pub);
      } catch (error) {
        // The position stays, so that the next connection brings this one again, whole.
        this.emit("error", asError(error));
        this.#port.restart(CONNECTION_LOST, "a patch does not fit");
        return;
      }
    }
    this.#position = advance(this.#position, pub);
    this.emit("publication", publicationOf(this.channel, pub, recovered));
  }

  /** What comes is the document's text, or a patch to the one before. @param {any} pub */
  #documentOf({ delta, ...pub }) {
    const text = utf8.encode(pub.data);
    const document = delta ? applyDelta(this.#base, text) : text;
    const data = JSON.parse(delta ? new TextDecoder().decode(document) : pub.data);
    this.#base = document;
    this.traffic.received += text.length;
    this.traffic.documents += document.length;
    if (delta) this.traffic.patches++;
    return { ...pub, data };
  }

  async #refresh() {
    const attempt = this.#attempt;
    const { wire } = this.#port;
    const renewLater = (/** @type {Error} */ error) => {
      this.#credential.renewBetween(10, 20, () => this.#refresh());
      this.emit("error", error);
    };
    const settle = (/** @type {TidewireError | null} */ error, /** @type {any} */ result) => {
      if (this.#attempt !== attempt) return;
      if (!error) this.#credential.renewAfter(result, () => this.#refresh());
      else if (error.temporary) renewLater(error);
      else this.#leave(error);
    };
    try {
      const token = await this.#credential.fetch();
      if (this.#attempt === attempt) wire?.call("sub_refresh", { channel: this.channel, token }, settle);
    } catch (error) {
      settle(asError(error), null);
    }
  }

  /** The token cannot be renewed. @param {TidewireError} error */
  #leave(error) {
    this.#port.wire?.call("unsubscribe", { channel: this.channel }, () => {});
    this.#stop(error.code, error.message);
  }

  /** @param {number} code  @param {string} reason */
  #stop(code, reason) {
    this.#standBy();
    this.enter("unsubscribed", { code, reason });
  }

  #standBy() {
    this.#attempt = {};
    this.#isSent = false;
    clearTimeout(this.#retry);
    this.#credential.cancel();
  }

  /** @param {string} method  @param {object} params */
  async #ask(method, params) {
    await this.ready(this.#port.options.timeout);
    return this.#port.call(method, { channel: this.channel, ...params });
  }
}

/**
 * The connection, and the subscriptions that live on it.
 * @extends {Machine<ClientEvents>}
 */
export class Tidewire extends Machine {
  #url;
  #options;
  #credential;
  /** @type {Wire | null} */ #wire = null;
  #attempts = 0;
  #generation = 0;
  /** @type {any} */ #retry = 0;
  /** @type {Map<string, Subscription>} */ #subscriptions = new Map();
  /** Made by the server, by channel; null: cannot be recovered. @type {Map<string, Position | null>} */
  #serverSide = new Map();

  /**
   * @param {string} url  Of the WebSocket endpoint; relative to the page, if you like.
   * @param {ClientOptions} [options]
   */
  constructor(url, options = {}) {
    super("disconnected", "connected");
    this.#url = new URL(url, globalThis.location?.href);
    this.#url.protocol = this.#url.protocol.replace(/^http/, "ws");
    const defaults = { minDelay: 500, maxDelay: 20000, timeout: 5000, maxSilence: 10000, name: "tidewire-js" };
    this.#options = { ...defaults, websocket: globalThis.WebSocket, ...options };
    this.#credential = new Credential(options.token ?? "", options.getToken);
  }

  /**
   * Make a client of what `{% realtime_script %}` has put into the page.
   * @param {ClientOptions & { id?: string }} [options]
   */
  static fromPage({ id = "realtime-config", ...options } = {}) {
    const element = document.getElementById(id);
    if (!element) throw new Error(`{% realtime_script %} is missing: the page has no element "${id}"`);
    const { url, token, tokenUrl } = JSON.parse(element.textContent ?? "{}");
    const getToken = tokenUrl ? () => fetchToken(tokenUrl) : undefined;
    return new Tidewire(url, { token, getToken, ...options });
  }

  /** By channel. @returns {ReadonlyMap<string, Subscription>} */
  get subscriptions() {
    return this.#subscriptions;
  }

  connect() {
    if (this.state !== "disconnected") return;
    this.#attempts = 0;
    globalThis.addEventListener?.("online", this.#onOnline);
    globalThis.addEventListener?.("offline", this.#onOffline);
    this.enter("connecting", { code: CALLED, reason: "connect called" });
    this.#dial();
  }

  disconnect() {
    if (this.state !== "disconnected") this.#stop(CALLED, "disconnect called");
  }

  /**
   * Subscribe now, or as soon as there is a connection.
   *
   * @param {string} channel  Each once: ask `subscriptions` whether you have it.
   * @param {SubscriptionOptions} [options]
   */
  subscribe(channel, options = {}) {
    if (this.#subscriptions.has(channel)) throw new Error(`there is a subscription to ${channel}`);
    const client = this;
    const subscription = new Subscription(channel, options, {
      get wire() {
        return client.#wire?.isOpen ? client.#wire : null;
      },
      options: this.#options,
      restart: (code, reason) => this.#wire?.close(code, reason),
      call: (method, params) => this.#call(method, params),
      remove: () => this.#subscriptions.delete(channel),
    });
    this.#subscriptions.set(channel, subscription);
    subscription.subscribe();
    return subscription;
  }

  /** @param {string} channel  @param {any} data */
  async publish(channel, data) {
    await this.#call("publish", { channel, data });
  }

  /** @param {string} channel  @param {HistoryOptions} [options]  @returns {Promise<History>} */
  async history(channel, options = {}) {
    return historyOf(channel, await this.#call("history", { channel, ...options }));
  }

  /** @param {string} channel  @returns {Promise<Record<string, ClientInfo>>} */
  async presence(channel) {
    return (await this.#call("presence", { channel })).presence;
  }

  /** @param {string} channel  @returns {Promise<{ num_clients: number, num_users: number }>} */
  presenceStats(channel) {
    return this.#call("presence_stats", { channel });
  }

  /** @param {string} method  @param {any} [data]  @returns {Promise<any>}  The answer's data. */
  async rpc(method, data = null) {
    return (await this.#call("rpc", { method, data })).data;
  }

  /** @param {string} method  @param {object} params  @returns {Promise<any>} */
  async #call(method, params) {
    await this.ready(this.#options.timeout);
    const wire = this.#wire;
    if (!wire) throw new TidewireError(CONNECTION_LOST, "connection lost");
    return new Promise((resolve, reject) => {
      wire.call(method, params, (error, result) => (error ? reject(error) : resolve(result)), reject);
    });
  }

  async #dial() {
    clearTimeout(this.#retry);
    const generation = ++this.#generation;
    try {
      if (this.#credential.isWanted) await this.#credential.fetch();
      if (generation !== this.#generation) return;
      this.#wire = new Wire(new this.#options.websocket(this.#url.href), this.#options, {
        onOpen: () => this.#greet(),
        onPush: (push) => this.#receive(push),
        onClose: (code, reason) => this.#lose(code, reason),
      });
    } catch (error) {
      if (generation === this.#generation) this.#refuse(asError(error));
    }
  }

  /** The connect command, and behind it in the same frame what subscriptions have to say. */
  #greet() {
    const { name, data } = this.#options;
    const positions = [...this.#serverSide].flatMap(([channel, position]) =>
      position ? [[channel, { recover: true, ...position }]] : [],
    );
    const subs = positions.length ? Object.fromEntries(positions) : undefined;
    const token = this.#credential.token || undefined;
    this.#wire?.call("connect", { token, data, name, subs }, (error, result) => {
      if (error) this.#refuse(error);
      else this.#accept(result);
    });
    for (const subscription of this.#subscriptions.values()) subscription.join();
  }

  /** @param {any} result */
  #accept(result) {
    const wire = /** @type {Wire} */ (this.#wire);
    const { client, version, data, ttl, subs = {} } = result;
    this.#attempts = 0;
    wire.expectPings(result.ping, result.pong);
    this.#credential.renewAfter(result, () => this.#refresh());
    this.enter("connected", { client, version, data, ttl });
    for (const channel of [...this.#serverSide.keys()]) {
      if (wire.isOpen && !(channel in subs)) this.#expel(channel, { code: CALLED, reason: "not renewed" });
    }
    for (const [channel, sub] of Object.entries(subs)) {
      if (wire.isOpen) this.#adopt(channel, sub);
    }
  }

  /** @param {TidewireError} error */
  #refuse(error) {
    if (error.code === TOKEN_EXPIRED) this.#credential.token = "";
    if (!isWorthRetrying(error) || (error.code === TOKEN_EXPIRED && this.#credential.isFinal)) {
      this.#stop(error.code, error.message);
      return;
    }
    this.emit("error", error);
    if (this.#wire) this.#wire.close(CONNECTION_LOST, error.message);
    else this.#lose(CONNECTION_LOST, error.message);
  }

  /** @param {number} code  @param {string} reason */
  #lose(code, reason) {
    this.#wire = null;
    this.#credential.cancel();
    if (this.state === "disconnected") return;
    if (isTerminal(code)) {
      this.#stop(code, reason);
      return;
    }
    if (code === STATE_INVALIDATED) this.#invalidate();
    const cause = { code, reason: reason || "connection lost" };
    if (this.state === "connected") this.enter("connecting", cause);
    for (const subscription of this.#subscriptions.values()) subscription.lose(cause);
    if (this.state === "connecting" && !this.#wire) this.#dialLater();
  }

  #dialLater() {
    const delay = backoff(this.#attempts++, this.#options);
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.#dial(), delay);
    this.emit("retry", { attempt: this.#attempts, delay });
  }

  /** @param {number} code  @param {string} reason */
  #stop(code, reason) {
    const cause = { code, reason };
    this.#generation++;
    clearTimeout(this.#retry);
    this.#credential.cancel();
    globalThis.removeEventListener?.("online", this.#onOnline);
    globalThis.removeEventListener?.("offline", this.#onOffline);
    this.state = "disconnected";
    this.#wire?.close(code, reason);
    for (const subscription of this.#subscriptions.values()) subscription.lose(cause);
    this.enter("disconnected", cause);
  }

  #invalidate() {
    this.#credential.token = "";
    for (const subscription of this.#subscriptions.values()) subscription.invalidate();
    for (const [channel, position] of this.#serverSide) {
      if (position) this.#serverSide.set(channel, { offset: 0, epoch: NO_SUCH_EPOCH });
    }
  }

  async #refresh() {
    const wire = this.#wire;
    const settle = (/** @type {TidewireError | null} */ error, /** @type {any} */ result) => {
      if (this.#wire !== wire) return;
      if (!error) {
        this.#credential.renewAfter(result, () => this.#refresh());
        this.emit("refreshed", { ttl: result.ttl });
      } else if (error.temporary) {
        this.#credential.renewBetween(5, 10, () => this.#refresh());
        this.emit("error", error);
      } else this.#stop(error.code, error.message);
    };
    try {
      const token = await this.#credential.fetch();
      if (this.#wire === wire) wire?.call("refresh", { token }, settle);
    } catch (error) {
      settle(asError(error), null);
    }
  }

  /** @param {any} push */
  #receive(push) {
    const { channel, pub, join, leave, subscribe, unsubscribe, disconnect } = push;
    if (disconnect) this.#wire?.close(disconnect.code, disconnect.reason);
    else if (subscribe) this.#adopt(channel, subscribe);
    else if (this.#subscriptions.has(channel)) this.#subscriptions.get(channel)?.receive(push);
    else if (!this.#serverSide.has(channel)) return;
    else if (unsubscribe) this.#expel(channel, unsubscribe);
    else if (pub) this.#deliver(channel, pub, false);
    else if (join) this.emit("join", { channel, info: join.info });
    else if (leave) this.emit("leave", { channel, info: leave.info });
  }

  /** The server has subscribed us. @param {string} channel  @param {any} result */
  #adopt(channel, result) {
    this.#serverSide.set(channel, positionOf(result));
    this.emit("subscribed", subscribedOf(channel, result));
    for (const pub of result.publications ?? []) this.#deliver(channel, pub, true);
  }

  /** @param {string} channel  @param {Cause} cause */
  #expel(channel, cause) {
    this.#serverSide.delete(channel);
    this.emit("unsubscribed", { channel, ...cause });
  }

  /** @param {string} channel  @param {any} pub  @param {boolean} recovered */
  #deliver(channel, pub, recovered) {
    this.#serverSide.set(channel, advance(this.#serverSide.get(channel) ?? null, pub));
    this.emit("publication", publicationOf(channel, pub, recovered));
  }

  #onOnline = () => {
    if (this.state === "connecting" && !this.#wire) this.#dial();
  };

  #onOffline = () => this.#wire?.close(CONNECTION_LOST, "network offline");
}

const utf8 = new TextEncoder();
const DIGITS = utf8.encode("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~");
const [AT, COLON, SEMICOLON] = utf8.encode("@:;");

/**
 * Make a document of the one before and a Fossil delta: its size, copies of the base and new bytes, a checksum.
 *
 * @param {Uint8Array} base  @param {Uint8Array} delta  @returns {Uint8Array}
 */
function applyDelta(base, delta) {
  let at = 0;
  const number = () => {
    for (let value = 0; ; at++) {
      const digit = DIGITS.indexOf(delta[at]);
      if (digit < 0) return value;
      value = value * 64 + digit;
    }
  };
  const target = new Uint8Array(number());
  let end = 0;
  at++;
  for (;;) {
    const count = number();
    const operator = delta[at++];
    if (operator === AT) {
      const from = number();
      target.set(base.subarray(from, from + count), end);
      at++;
    } else if (operator === COLON) {
      target.set(delta.subarray(at, at + count), end);
      at += count;
    } else if (operator === SEMICOLON && end === target.length && checksum(target) === count) {
      return target;
    } else {
      throw new Error("malformed delta, or one for another document");
    }
    end += count;
  }
}

/** The sum of big-endian words of 32 bits. @param {Uint8Array} bytes */
function checksum(bytes) {
  let sum = 0;
  bytes.forEach((byte, index) => (sum = (sum + (byte << (24 - 8 * (index & 3)))) >>> 0));
  return sum;
}

/** @param {any} result  @returns {Position | null} */
const positionOf = ({ recoverable, offset = 0, epoch = "" }) => (recoverable ? { offset, epoch } : null);

/** @param {Position | null} position  @param {{ offset?: number, epoch?: string }} pub  @returns {Position | null} */
const advance = (position, { offset, epoch }) =>
  position && offset ? { offset, epoch: epoch || position.epoch } : position;

/** @param {string} channel  @param {any} result  @returns {Subscribed} */
const subscribedOf = (channel, result) => ({
  channel,
  data: result.data,
  wasRecovering: !!result.was_recovering,
  recovered: !!result.recovered,
  position: positionOf(result),
});

/** @param {string} channel  @param {any} result  @returns {History} */
const historyOf = (channel, { publications = [], offset = 0, epoch = "" }) => ({
  publications: publications.map((/** @type {any} */ pub) => publicationOf(channel, pub, false)),
  offset,
  epoch,
});

/** What an application's function threw: worth another try, unless it says that it isn't. @param {any} error */
const asError = (error) =>
  error instanceof TidewireError ? error : Object.assign(new TidewireError(CONNECTION_LOST, String(error)), { cause: error });

/** @param {string} url  @returns {Promise<string>} */
async function fetchToken(url) {
  const response = await fetch(url, { credentials: "same-origin", headers: { Accept: "application/json" } });
  if (response.status === 401 || response.status === 403) throw new UnauthorizedError();
  if (!response.ok) throw new Error(`${url} answered ${response.status}`);
  return (await response.json()).token;
}
