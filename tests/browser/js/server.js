/**
 * A working, tiny server of the client protocol on the loopback interface: streams, recovery, presence, echo.
 *
 * `answers` lets a test replace the reply to a method: a function of (params, peer) that returns `{ result }`,
 * `{ error }`, or null for no reply at all.
 */

import { once } from "node:events";
import { WebSocketServer } from "ws";

export class FakeServer {
  /** Frames as they came. @type {string[]} */ frames = [];
  /** Every command, in order. @type {any[]} */ commands = [];
  /** @type {Set<Peer>} */ peers = new Set();
  /** @type {Map<string, any[]>} */ streams = new Map();
  /** @type {Record<string, (params: any, peer: Peer) => any>} */ answers = {};
  epoch = "abcdefgh";
  connects = 0;
  /** @type {any} */ welcome = { version: "fake", ping: 25, pong: true };

  static async start(port = 0) {
    const server = new FakeServer();
    await server.listen(port);
    return server;
  }

  async listen(port = 0) {
    this.socket = new WebSocketServer({ host: "127.0.0.1", port });
    this.socket.on("connection", (socket) => this.peers.add(new Peer(this, socket)));
    await once(this.socket, "listening");
    this.port = this.socket.address().port;
    this.url = `ws://127.0.0.1:${this.port}/connection/websocket`;
  }

  /** @param {any} data */
  publish(channel, data, extra = {}) {
    const stream = this.streams.get(channel) ?? [];
    this.streams.set(channel, stream);
    const pub = { data, offset: stream.length + 1, ...extra };
    stream.push(pub);
    this.push(channel, { pub });
  }

  push(channel, body) {
    for (const peer of this.peers) if (peer.channels.has(channel)) peer.send({ push: { channel, ...body } });
  }

  close(code, reason) {
    for (const peer of this.peers) peer.socket.close(code, reason);
  }

  /** Methods of the commands that came, in order. */
  get methods() {
    return this.commands.map((command) => Object.keys(command).find((key) => key !== "id") ?? "pong");
  }

  async stop() {
    for (const peer of this.peers) peer.socket.terminate();
    await new Promise((resolve) => this.socket.close(resolve));
  }
}

class Peer {
  /** @type {Set<string>} */ channels = new Set();

  constructor(server, socket) {
    this.server = server;
    this.socket = socket;
    socket.on("message", (data) => this.receive(String(data)));
    socket.on("close", () => server.peers.delete(this));
  }

  send(...replies) {
    this.socket.send(replies.map((reply) => JSON.stringify(reply)).join("\n"));
  }

  receive(frame) {
    const { server } = this;
    server.frames.push(frame);
    const replies = [];
    for (const line of frame.split("\n")) {
      const command = JSON.parse(line);
      server.commands.push(command);
      const method = Object.keys(command).find((key) => key !== "id");
      if (!method) continue;
      const { result, error, behind = [] } = (server.answers[method] ?? this[method]).call(this, command[method], this) ?? {};
      if (error) replies.push({ id: command.id, error });
      else if (result) replies.push({ id: command.id, [method]: result }, ...behind);
    }
    if (replies.length) this.send(...replies);
  }

  connect() {
    return { result: { client: `client-${++this.server.connects}`, ...this.server.welcome } };
  }

  refresh() {
    return { result: {} };
  }

  sub_refresh() {
    return { result: {} };
  }

  subscribe({ channel, recover, offset = 0, epoch }) {
    this.channels.add(channel);
    const stream = this.server.streams.get(channel) ?? [];
    const result = { recoverable: true, positioned: true, epoch: this.server.epoch, offset: stream.length };
    if (recover && epoch === this.server.epoch) {
      Object.assign(result, { recovered: true, offset, publications: stream.slice(offset) });
    }
    return { result: { ...result, was_recovering: recover } };
  }

  unsubscribe({ channel }) {
    this.channels.delete(channel);
    return { result: {} };
  }

  publish({ channel, data }) {
    this.server.publish(channel, data);
    return { result: {} };
  }

  history({ channel, limit = 0 }) {
    const stream = this.server.streams.get(channel) ?? [];
    return { result: { publications: stream.slice(0, limit), offset: stream.length, epoch: this.server.epoch } };
  }

  presence() {
    return { result: { presence: { c1: { user: "u", client: "c1" } } } };
  }

  presence_stats() {
    return { result: { num_clients: 2, num_users: 1 } };
  }

  rpc({ method, data }) {
    return method === "echo" ? { result: { data } } : { error: { code: 104, message: "method not found" } };
  }
}
