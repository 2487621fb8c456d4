/** The client module against a tiny server of our own. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import WebSocket from "ws";
import { Tidewire, TidewireError, UnauthorizedError } from "../../../realtime/static/realtime/tidewire.js";
import { FakeServer } from "./server.js";

/** @type {FakeServer} */ let server;
/** @type {Tidewire[]} */ let clients = [];

beforeEach(async () => {
  server = await FakeServer.start();
});

afterEach(async () => {
  for (const client of clients.splice(0)) client.disconnect();
  await server.stop();
});

function makeClient(options = {}) {
  const client = new Tidewire(server.url, { websocket: WebSocket, minDelay: 5, maxDelay: 20, timeout: 500, ...options });
  clients.push(client);
  return client;
}

/** The next `count` details of an event (of one: the detail itself), or an error after two seconds. */
function next(machine, event, count = 1) {
  return new Promise((resolve, reject) => {
    const details = [];
    const timer = setTimeout(() => finish(() => reject(new Error(`no "${event}"`))), 2000);
    const end = machine.on(event, (detail) => {
      if (details.push(detail) === count) finish(() => resolve(count === 1 ? detail : details));
    });
    const finish = (settle) => {
      clearTimeout(timer);
      end();
      settle();
    };
  });
}

function record(machine, ...events) {
  const log = [];
  for (const event of events) machine.on(event, (detail) => log.push([event, detail]));
  return log;
}

async function connected(options) {
  const client = makeClient(options);
  client.connect();
  await client.ready();
  return client;
}

test("connects and says so", async () => {
  const client = makeClient({ token: "jwt" });
  const log = record(client, "connecting", "connected");

  client.connect();
  await client.ready();

  assert.deepEqual(log.map(([event]) => event), ["connecting", "connected"]);
  assert.equal(log[1][1].client, "client-1");
  assert.deepEqual(server.commands[0].connect, { token: "jwt", name: "tidewire-js" });
});

test("sends connect and the waiting subscriptions in one frame", async () => {
  const client = makeClient();
  const a = client.subscribe("a");
  const b = client.subscribe("b");
  client.connect();
  await Promise.all([a.ready(), b.ready()]);

  assert.equal(server.frames.length, 1);
  assert.deepEqual(server.methods, ["connect", "subscribe", "subscribe"]);
});

test("splits a batch that would grow beyond the server's frame limit", async () => {
  const client = makeClient();
  const subscriptions = Array.from({ length: 8 }, (_, n) => client.subscribe(`c${n}`, { data: "x".repeat(5000) }));
  client.connect();
  await Promise.all(subscriptions.map((subscription) => subscription.ready()));

  assert.ok(server.frames.length > 1);
  for (const frame of server.frames) assert.ok(frame.length < 16384, `${frame.length}`);
});

test("delivers publications with channel, offset and publisher", async () => {
  const client = await connected();
  const news = client.subscribe("news");
  await news.ready();
  const info = { user: "42", client: "c1" };

  const arriving = next(news, "publication");
  server.publish("news", { text: "hi" }, { info, tags: { lang: "en" } });

  assert.deepEqual(await arriving, {
    channel: "news", data: { text: "hi" }, offset: 1, info, tags: { lang: "en" }, recovered: false,
  });
  assert.deepEqual(news.position, { offset: 1, epoch: "abcdefgh" });
});

test("hears pushes that follow the subscribe reply in the same frame", async () => {
  server.answers.subscribe = ({ channel }) => ({
    result: { recoverable: true, epoch: "e", offset: 3 },
    behind: [{ push: { channel, pub: { data: 1, offset: 4 } } }],
  });
  const client = await connected();
  const news = client.subscribe("news");
  const log = record(news, "subscribed", "publication");
  await news.ready();

  assert.deepEqual(log.map(([event]) => event), ["subscribed", "publication"]);
  assert.deepEqual(news.position, { offset: 4, epoch: "e" });
});

test("recovers what was published while the connection was down, once and in order", async () => {
  const client = await connected();
  const news = client.subscribe("news");
  await news.ready();
  const log = record(news, "publication");
  server.publish("news", 1);
  await next(news, "publication");

  const back = next(news, "subscribed");
  server.close(3001, "shutdown");
  await next(client, "connecting");
  server.publish("news", 2);
  server.publish("news", 3);
  const { recovered, wasRecovering } = await back;
  const live = next(news, "publication");
  server.publish("news", 4);
  await live;

  assert.deepEqual([recovered, wasRecovering], [true, true]);
  assert.deepEqual(log.map(([, pub]) => [pub.offset, pub.recovered]), [[1, false], [2, true], [3, true], [4, false]]);
});

test("says when recovery was impossible, and goes on from the new top", async () => {
  const client = await connected();
  const news = client.subscribe("news", { since: { offset: 9, epoch: "another" } });
  server.publish("news", 1);
  const { recovered, wasRecovering, position } = await next(news, "subscribed");

  assert.deepEqual([recovered, wasRecovering], [false, true]);
  assert.deepEqual(position, { offset: 1, epoch: "abcdefgh" });
});

test("joins again after insufficient state, and stays away after a server's unsubscribe", async () => {
  const client = await connected();
  const news = client.subscribe("news");
  await news.ready();

  server.push("news", { unsubscribe: { code: 2500, reason: "insufficient state" } });
  assert.equal((await next(news, "subscribing")).code, 2500);
  assert.equal((await next(news, "subscribed")).wasRecovering, true);
  server.push("news", { unsubscribe: { code: 2000, reason: "server unsubscribe" } });

  assert.deepEqual(await next(news, "unsubscribed"), { code: 2000, reason: "server unsubscribe" });
});

test("forgets token and position when the state is invalidated", async () => {
  let tokens = 0;
  const client = await connected();
  const news = client.subscribe("news", { getToken: async (channel) => `${channel}-${++tokens}` });
  await news.ready();

  server.push("news", { unsubscribe: { code: 2502, reason: "state invalidated" } });
  const { recovered } = await next(news, "subscribed");

  assert.equal(recovered, false);
  const { token, offset, epoch } = server.commands.at(-1).subscribe;
  assert.deepEqual([token, offset, epoch], ["news-2", 0, "_"]);
});

test("forgets every token and position on close code 3014", async () => {
  let tokens = 0;
  const client = await connected({ getToken: async () => `t${++tokens}` });
  const news = client.subscribe("news");
  await news.ready();

  server.close(3014, "state invalidated");
  await next(news, "subscribed");

  assert.equal(server.commands.at(-2).connect.token, "t2");
  assert.equal(server.commands.at(-1).subscribe.epoch, "_");
});

for (const code of [3000, 3001, 3012, 4000, 4499]) {
  test(`dials again after close code ${code}`, async () => {
    const client = await connected();
    const again = next(client, "connected");
    server.close(code, "why");

    assert.equal((await next(client, "connecting")).code, code);
    assert.equal((await again).client, "client-2");
  });
}

for (const code of [3500, 3503, 3999, 4500, 4999, 1009]) {
  test(`gives up after close code ${code}`, async () => {
    const client = await connected();
    const news = client.subscribe("news");
    await news.ready();
    server.close(code, "why");

    assert.deepEqual(await next(client, "disconnected"), { code, reason: "why" });
    assert.equal(news.state, "subscribing");
    assert.equal(client.state, "disconnected");
  });
}

test("obeys a disconnect push like a close", async () => {
  const client = await connected();
  for (const peer of server.peers) peer.send({ push: { disconnect: { code: 3503, reason: "force disconnect" } } });

  assert.deepEqual(await next(client, "disconnected"), { code: 3503, reason: "force disconnect" });
});

test("keeps dialling while there is no server, with growing pauses under the cap", async () => {
  const client = await connected();
  const { port } = server;
  const retries = next(client, "retry", 6);
  await server.stop();
  const delays = await retries;
  await server.listen(port);
  await client.ready();

  assert.deepEqual(delays.map(({ attempt }) => attempt), [1, 2, 3, 4, 5, 6]);
  for (const { delay } of delays) assert.ok(delay >= 5 && delay <= 20, `${delay}`);
});

test("answers a ping with one pong", async () => {
  const client = await connected();
  for (const peer of server.peers) peer.send({}, { push: { channel: "s", subscribe: {} } });
  await next(client, "subscribed");
  await client.presenceStats("a");

  assert.deepEqual(server.commands.slice(1), [{}, { id: 2, presence_stats: { channel: "a" } }]);
});

test("sends no pong to a server that wants none", async () => {
  server.welcome = { version: "fake", ping: 25 };
  const client = await connected();
  for (const peer of server.peers) peer.send({}, { push: { channel: "s", subscribe: {} } });
  await next(client, "subscribed");
  await client.presenceStats("a");

  assert.deepEqual(server.methods, ["connect", "presence_stats"]);
});

test("dials again when the server falls silent", async () => {
  server.welcome = { version: "fake", ping: 0.05, pong: true };
  const client = await connected({ maxSilence: 100 });

  assert.deepEqual(await next(client, "connecting"), { code: 2, reason: "no ping" });
  await client.ready();
});

test("dials again when a subscribe is not answered", async () => {
  let silent = true;
  server.answers.subscribe = () => (silent ? ((silent = false), null) : { result: {} });
  const client = await connected({ timeout: 50 });
  const news = client.subscribe("news");

  assert.equal((await next(client, "connecting")).reason, "subscribe timeout");
  await news.ready();
});

test("retries a temporary error, and takes any other for final", async () => {
  let left = 2;
  server.answers.subscribe = ({ channel }) => {
    if (channel === "secret") return { error: { code: 103, message: "permission denied" } };
    return left-- ? { error: { code: 100, message: "internal server error", temporary: true } } : { result: {} };
  };
  const client = await connected();
  const news = client.subscribe("news");
  const secret = client.subscribe("secret");
  await assert.rejects(secret.ready(), { code: 103, message: "permission denied" });
  await news.ready();

  assert.equal(secret.state, "unsubscribed");
  assert.equal(server.methods.filter((method) => method === "subscribe").length, 4);
});

test("fetches a new token when the server calls the old one expired", async () => {
  server.answers.connect = ({ token }) =>
    token === "new" ? { result: { client: "c" } } : { error: { code: 109, message: "token expired" } };
  const client = await connected({ token: "old", getToken: async () => "new" });

  assert.equal(client.state, "connected");
});

test("gives up on an expired token that nobody renews", async () => {
  server.answers.connect = () => ({ error: { code: 109, message: "token expired" } });
  const client = makeClient({ token: "old" });
  client.connect();

  assert.equal((await next(client, "disconnected")).code, 109);
});

test("gives up when the application has no token for this visitor", async () => {
  for (const getToken of [async () => "", async () => { throw new UnauthorizedError(); }]) {
    const client = makeClient({ getToken });
    client.connect();
    assert.equal((await next(client, "disconnected")).reason, "unauthorized");
  }
  assert.deepEqual(server.commands, []);
});

test("tries again when fetching the token failed", async () => {
  let calls = 0;
  const getToken = async () => {
    if (++calls === 1) throw new Error("offline");
    return "jwt";
  };
  const client = makeClient({ getToken });
  const failing = next(client, "error");
  client.connect();

  assert.match((await failing).message, /offline/);
  await client.ready();
  assert.equal(calls, 2);
});

test("renews the connection's token before it expires", async () => {
  server.welcome = { version: "fake", expires: true, ttl: 0.05 };
  server.answers.refresh = ({ token }) => ({ result: token === "t1" ? {} : { expires: true, ttl: 0.05 } });
  let tokens = 0;
  const client = await connected({ getToken: async () => `t${++tokens}` });
  await next(client, "refreshed", 2);

  const sent = server.commands.flatMap(({ connect, refresh }) => (connect ?? refresh)?.token ?? []);
  assert.deepEqual(sent.slice(0, 3), ["t1", "t2", "t3"]);
  assert.equal(server.connects, 1);
});

test("renews a subscription's token, and leaves when that is refused", async () => {
  server.answers.subscribe = () => ({ result: { expires: true, ttl: 0.03 } });
  server.answers.sub_refresh = ({ token }) =>
    token === "t3" ? { error: { code: 103, message: "permission denied" } } : { result: { expires: true, ttl: 0.03 } };
  let tokens = 0;
  const client = await connected();
  const news = client.subscribe("$news", { getToken: async () => `t${++tokens}` });

  assert.equal((await next(news, "unsubscribed")).code, 103);
  assert.deepEqual(server.methods, ["connect", "subscribe", "sub_refresh", "sub_refresh"]);
  await client.presenceStats("a");
  assert.deepEqual(server.methods.slice(-2), ["unsubscribe", "presence_stats"]);
});

test("publishes, asks for history, presence and their numbers, calls procedures", async () => {
  const client = await connected();
  const news = client.subscribe("news");
  await news.publish({ n: 1 });
  await client.publish("news", { n: 2 });

  const { publications, offset, epoch } = await news.history({ limit: 10 });
  assert.deepEqual(publications.map(({ data }) => data.n), [1, 2]);
  assert.deepEqual([offset, epoch], [2, "abcdefgh"]);
  assert.deepEqual(await news.presence(), { c1: { user: "u", client: "c1" } });
  assert.deepEqual(await news.presenceStats(), { num_clients: 2, num_users: 1 });
  assert.deepEqual(await client.rpc("echo", { a: [1] }), { a: [1] });
  await assert.rejects(client.rpc("nope"), { name: "TidewireError", code: 104, message: "method not found" });
});

test("waits with a command until there is a connection", async () => {
  const client = makeClient();
  client.connect();
  await client.publish("news", 1);

  assert.deepEqual(server.methods, ["connect", "publish"]);
});

test("rejects commands without a connection, without an answer, and when it breaks meanwhile", async () => {
  const client = makeClient({ timeout: 40 });
  await assert.rejects(client.publish("news", 1), { message: "disconnected" });

  server.answers.publish = () => null;
  client.connect();
  await assert.rejects(client.publish("news", 1), { message: "no answer to publish" });
  const breaking = client.publish("news", 1);
  server.close(3001, "shutdown");
  await assert.rejects(breaking, (error) => error instanceof TidewireError && error.message === "connection lost");
});

test("tells who comes and goes", async () => {
  const client = await connected();
  const news = client.subscribe("news", { joinLeave: true });
  await news.ready();
  const info = { user: "u", client: "c" };

  const coming = next(news, "join");
  const going = next(news, "leave");
  server.push("news", { join: { info } });
  server.push("news", { leave: { info } });

  assert.deepEqual(await coming, { channel: "news", info });
  assert.deepEqual(await going, { channel: "news", info });
  assert.equal(server.commands.at(-1).subscribe.join_leave, true);
});

test("a cancelled subscribe is not mistaken for the next one", async () => {
  const client = await connected();
  const news = client.subscribe("news");
  const log = record(news, "subscribing", "subscribed", "unsubscribed");
  news.unsubscribe();
  news.subscribe();
  await news.ready();
  await client.presenceStats("a");

  assert.deepEqual(server.methods.slice(1), ["subscribe", "unsubscribe", "subscribe", "presence_stats"]);
  assert.deepEqual(log.map(([event]) => event), ["unsubscribed", "subscribing", "subscribed"]);
});

test("a removed subscription can be made anew, a second one beside it cannot", async () => {
  const client = await connected();
  const news = client.subscribe("news");
  assert.throws(() => client.subscribe("news"), /there is a subscription/);
  await news.ready();

  news.remove();
  await client.subscribe("news").ready();

  assert.deepEqual(server.methods, ["connect", "subscribe", "unsubscribe", "subscribe"]);
});

test("keeps the server's subscriptions, and recovers them", async () => {
  const subs = { "#42": { recoverable: true, epoch: "e", offset: 5 }, plain: {} };
  server.answers.connect = ({ subs: asked }) => ({
    result: asked
      ? { client: "c", subs: { "#42": { recoverable: true, epoch: "e", offset: 6, recovered: true, was_recovering: true, publications: [{ data: "b", offset: 7 }] } } }
      : { client: "c", subs },
  });
  const client = makeClient();
  const log = record(client, "subscribed", "unsubscribed", "publication");
  client.connect();
  await client.ready();
  const arriving = next(client, "publication");
  for (const peer of server.peers) peer.send({ push: { channel: "#42", pub: { data: "a", offset: 6 } } });
  await arriving;
  server.close(3010, "insufficient state");
  await next(client, "publication");

  assert.deepEqual(server.commands.at(-1).connect.subs, { "#42": { recover: true, offset: 6, epoch: "e" } });
  assert.deepEqual(log.map(([event, { channel, recovered }]) => [event, channel, recovered]), [
    ["subscribed", "#42", false],
    ["subscribed", "plain", false],
    ["publication", "#42", false],
    ["unsubscribed", "plain", undefined],
    ["subscribed", "#42", true],
    ["publication", "#42", true],
  ]);
});

test("adopts and drops subscriptions that the server makes later", async () => {
  const client = await connected();
  const [peer] = server.peers;
  const subscribed = next(client, "subscribed");
  const unsubscribed = next(client, "unsubscribed");
  const publication = next(client, "publication");
  peer.send(
    { push: { channel: "s", subscribe: { data: { x: 1 } } } },
    { push: { channel: "s", pub: { data: 1 } } },
    { push: { channel: "s", unsubscribe: { code: 2000, reason: "server unsubscribe" } } },
    { push: { channel: "s", pub: { data: 2 } } },
    { push: { channel: "unheard", join: { info: {} } } },
    { push: { novelty: {} } },
  );

  assert.deepEqual((await subscribed).data, { x: 1 });
  assert.equal((await publication).data, 1);
  assert.equal((await unsubscribed).channel, "s");
});

test("what a listener throws stops neither the reader nor the other listeners", async (context) => {
  const client = await connected();
  const news = client.subscribe("news");
  await news.ready();
  const reported = new Promise((resolve) => {
    const { setTimeout: real } = globalThis;
    context.mock.method(globalThis, "setTimeout", (fn, ms, ...rest) => {
      if (ms !== undefined) return real(fn, ms, ...rest);
      try {
        fn();
      } catch (error) {
        resolve(error);
      }
      return 0;
    });
  });
  news.on("publication", () => {
    throw new Error("listener");
  });
  const heard = next(news, "publication", 2);
  server.publish("news", 1);
  server.publish("news", 2);

  assert.equal((await heard).length, 2);
  assert.match((await reported).message, /listener/);
});

test("starts over when the server talks nonsense", async () => {
  const client = await connected();
  const again = next(client, "connected");
  for (const peer of server.peers) peer.socket.send("{nonsense");

  assert.equal((await next(client, "connecting")).reason, "malformed message");
  await again;
});

test("disconnect in a listener ends everything", async () => {
  const client = makeClient();
  const news = client.subscribe("news");
  const log = record(news, "subscribed", "publication");
  client.on("connected", () => client.disconnect());
  client.connect();
  await next(client, "disconnected");
  await new Promise((resolve) => setTimeout(resolve, 60));

  assert.deepEqual(log, []);
  assert.equal(client.state, "disconnected");
  assert.equal(server.connects, 1);
});

test("turns http URLs into WebSocket ones", async () => {
  const urls = [];
  class Recorder {
    constructor(url) {
      urls.push(url);
    }
    close() {}
  }
  for (const url of ["http://example.org/connection/websocket", "https://example.org/c", "wss://example.org/c"]) {
    const client = new Tidewire(url, { websocket: Recorder });
    client.connect();
    client.disconnect();
  }

  assert.deepEqual(urls, ["ws://example.org/connection/websocket", "wss://example.org/c", "wss://example.org/c"]);
});

const documents = [1, 2, 3].map((n) => JSON.stringify({ text: "Der Absatz bleibt: äöü€😀. ".repeat(4), n }));
// Made by the server's encoder.
const patches = ["2P\n2N@0,2:2}26LO9T;", "2P\n2N@0,2:3}26LO9U;"];

test("makes documents of patches, recovers, and asks anew for what does not fit", async () => {
  const client = await connected();
  server.answers.subscribe = ({ recover, offset }, peer) => {
    peer.channels.add("doc");
    const publications = recover ? [{ data: documents[offset], offset: offset + 1 }] : [];
    return { result: { recoverable: true, epoch: "e", offset: recover ? offset : 0, recovered: recover, delta: true, publications } };
  };
  const doc = client.subscribe("doc", { delta: true });
  const arrived = next(doc, "publication", 3);
  await doc.ready();

  server.push("doc", { pub: { data: documents[0], offset: 1 } });
  server.push("doc", { pub: { data: patches[0], offset: 2, delta: true } });
  server.push("doc", { pub: { data: patches[1].replace(/3/, "4"), offset: 3, delta: true } });

  const [error, publications] = await Promise.all([next(doc, "error"), arrived]);
  assert.match(error.message, /malformed delta/);
  assert.deepEqual(publications.map(({ data }) => data.n), [1, 2, 3]);
  assert.deepEqual(publications.map(({ recovered }) => recovered), [false, false, true]);
  assert.equal("delta" in publications[1], false);
  assert.equal(server.commands.find(({ subscribe }) => subscribe).subscribe.delta, "fossil");
  assert.equal(doc.traffic.patches, 1);
  assert.equal(doc.traffic.documents, documents.join("").length + 3 * 4 * (3 + 2 + 2));
  assert.ok(doc.traffic.received < doc.traffic.documents);
});

test("leaves publications alone where deltas were not granted", async () => {
  const client = await connected();
  const doc = client.subscribe("doc", { delta: true });
  await doc.ready();

  server.publish("doc", { n: 1 });

  assert.deepEqual((await next(doc, "publication")).data, { n: 1 });
});
