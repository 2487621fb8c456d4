// Drives the npm package `centrifuge` for the live tests.
//
//   node client.mjs URL json|protobuf [http_stream|sse [EMULATION_URL]]
//
// Reads one JSON command a line on stdin, writes one JSON event a line on stdout. Every command has an `op` and a
// `ref`; its outcome is the event {"event":"result","ref":…} with `result` or `error`. The end of stdin ends it.

import readline from 'node:readline';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';

const [url, format, transport, emulationUrl] = process.argv.slice(2);
const isProtobuf = format === 'protobuf';
const { Centrifuge, UnauthorizedError } = isProtobuf
  ? await import('centrifuge/build/protobuf')
  : await import('centrifuge');

const emit = (event, fields = {}) => {
  process.stdout.write(JSON.stringify({ event, ...fields }) + '\n');
};

// Payloads are JSON texts on both kinds of connection, so that one test serves both.
const pack = (value) => (isProtobuf ? new TextEncoder().encode(JSON.stringify(value)) : value);
const unpack = (value) => {
  if (value === undefined || value === null) return null;
  if (!isProtobuf) return value;
  return value.length ? JSON.parse(new TextDecoder().decode(value)) : null;
};
const info = (i) =>
  i && { user: i.user, client: i.client, conn_info: unpack(i.connInfo), chan_info: unpack(i.chanInfo) };
const publication = (p) => ({
  data: unpack(p.data),
  offset: Number(p.offset ?? 0),
  tags: p.tags ?? {},
  info: p.info ? info(p.info) : null,
});
const failure = (error) => ({ code: error?.code ?? -1, message: error?.message ?? String(error) });

let cut = null; // ends the connection in use, without a word
let socket = null; // of a WebSocket in use
let frames = []; // what came over WebSockets
class Socket extends WebSocket {
  constructor(address, protocols) {
    super(address, protocols);
    cut = () => this.terminate();
    socket = this;
    this.on('message', (data) => frames.push(Buffer.from(data)));
  }
}
const base = new URL(url.replace(/^ws/, 'http'));
const endpoint = transport ? new URL(`/connection/${transport}`, base).href : url;
const cuttableFetch = (address, options = {}) => {
  if (!String(address).startsWith(endpoint)) return fetch(address, options);
  const controller = new AbortController();
  // An AbortError would be taken for the SDK's own wish.
  cut = () => controller.abort(new TypeError('cut'));
  options.signal?.addEventListener('abort', () => controller.abort(options.signal.reason));
  return fetch(address, { ...options, signal: controller.signal });
};
class Events extends EventSource {
  constructor(address, options) {
    super(address, { ...options, fetch: cuttableFetch });
  }
}

const tokenWaiters = [];
const askForToken = (kind) => (context) =>
  new Promise((resolve, reject) => {
    tokenWaiters.push({ resolve, reject });
    emit('get_token', { kind, channel: context?.channel ?? '' });
  });

let client = null;
const subscriptions = new Map();

function connect({ token, get_token, name }) {
  client = new Centrifuge(transport ? [{ transport, endpoint }] : url, {
    websocket: Socket,
    fetch: cuttableFetch,
    eventsource: Events,
    emulationEndpoint: emulationUrl ?? new URL('/emulation', base).href,
    token: token ?? '',
    getToken: get_token ? askForToken('connection') : null,
    minReconnectDelay: 50,
    maxReconnectDelay: 500,
    timeout: 5000,
    name: name ?? 'js',
  });
  client.on('connecting', (c) => emit('connecting', { code: c.code, reason: c.reason }));
  client.on('connected', (c) => emit('connected', { client: c.client, transport: c.transport }));
  client.on('disconnected', (c) => emit('disconnected', { code: c.code, reason: c.reason }));
  client.on('error', (c) => emit('error', failure(c.error)));
  client.on('subscribed', (c) => emit('server_subscribed', subscribed(c)));
  client.on('unsubscribed', (c) => emit('server_unsubscribed', { channel: c.channel }));
  client.on('publication', (c) =>
    emit('server_publication', { channel: c.channel, ...publication(c) }));
  client.on('join', (c) => emit('server_join', { channel: c.channel, info: info(c.info) }));
  client.on('leave', (c) => emit('server_leave', { channel: c.channel, info: info(c.info) }));
  client.connect();
}

const subscribed = (c) => ({
  channel: c.channel,
  recoverable: c.recoverable,
  positioned: c.positioned,
  was_recovering: c.wasRecovering,
  recovered: c.recovered,
  offset: Number(c.streamPosition?.offset ?? 0),
  epoch: c.streamPosition?.epoch ?? '',
  data: unpack(c.data),
});

// The test is the application: it loads what it stores itself, and says since when publications are wanted.
const stateWaiters = [];
const askForState = (channel) => () =>
  new Promise((resolve) => {
    stateWaiters.push(resolve);
    emit('get_state', { channel });
  });

function subscribe({ channel, token, get_token, get_state, recoverable, positioned, join_leave, since, delta, tf }) {
  const subscription = client.newSubscription(channel, {
    token: token ?? '',
    getToken: get_token ? askForToken('subscription') : null,
    recoverable: recoverable ?? false,
    positioned: positioned ?? false,
    joinLeave: join_leave ?? false,
    since: since ?? null,
    minResubscribeDelay: 50,
    maxResubscribeDelay: 500,
    ...(delta ? { delta } : {}),
    ...(tf ? { tagsFilter: tf } : {}),
    ...(get_state ? { getState: askForState(channel) } : {}),
  });
  subscriptions.set(channel, subscription);
  subscription.on('subscribing', (c) => emit('subscribing', { channel, code: c.code, reason: c.reason }));
  subscription.on('subscribed', (c) => emit('subscribed', subscribed(c)));
  subscription.on('unsubscribed', (c) => emit('unsubscribed', { channel, code: c.code, reason: c.reason }));
  subscription.on('publication', (c) => emit('publication', { channel, ...publication(c) }));
  subscription.on('join', (c) => emit('join', { channel, info: info(c.info) }));
  subscription.on('leave', (c) => emit('leave', { channel, info: info(c.info) }));
  subscription.on('error', (c) => emit('subscription_error', { channel, ...failure(c.error) }));
  subscription.subscribe();
}

// The test signs: it gets the keys, and says which of them may be tracked, and by which signature.
const signatureWaiters = [];
const askForSignature = (channel) => ({ keys }) =>
  new Promise((resolve, reject) => {
    signatureWaiters.push({ resolve, reject });
    emit('get_signature', { channel, keys });
  });

function poll({ channel, delta }) {
  const subscription = client.newSharedPollSubscription(channel, {
    getSignature: askForSignature(channel),
    minResubscribeDelay: 50,
    maxResubscribeDelay: 500,
    ...(delta ? { delta } : {}),
  });
  subscriptions.set(channel, subscription);
  subscription.on('subscribing', (c) => emit('subscribing', { channel, code: c.code, reason: c.reason }));
  subscription.on('subscribed', () => emit('subscribed', { channel }));
  subscription.on('unsubscribed', (c) => emit('unsubscribed', { channel, code: c.code, reason: c.reason }));
  subscription.on('update', (c) =>
    emit('update', {
      channel,
      key: c.key,
      data: c.removed ? null : unpack(c.data),
      version: Number(c.version ?? 0),
      removed: c.removed ?? false,
    }));
  subscription.on('error', (c) => emit('subscription_error', { channel, type: c.type, ...failure(c.error) }));
  subscription.subscribe();
}

// What an application does with a map: `sync` is all of it, and then each `update` is a key.
const maps = new Map();
const entry = (e) => ({ ...publication(e), key: e.key, removed: e.removed ?? false });

function subscribeMap({ channel, kind, page_size, token, get_token, delta, tf }) {
  const make = {
    clients: (...given) => client.newMapClientsSubscription(...given),
    users: (...given) => client.newMapUsersSubscription(...given),
  }[kind] ?? ((...given) => client.newMapSubscription(...given));
  const subscription = make(channel, {
    token: token ?? '',
    getToken: get_token ? askForToken('subscription') : null,
    minResubscribeDelay: 50,
    maxResubscribeDelay: 500,
    ...(page_size ? { pageSize: page_size } : {}),
    ...(delta ? { delta } : {}),
    ...(tf ? { tagsFilter: tf } : {}),
  });
  const entries = new Map();
  maps.set(channel, entries);
  subscriptions.set(channel, subscription);
  subscription.on('subscribing', (c) => emit('subscribing', { channel, code: c.code, reason: c.reason }));
  subscription.on('subscribed', (c) => emit('subscribed', subscribed(c)));
  subscription.on('unsubscribed', (c) => emit('unsubscribed', { channel, code: c.code, reason: c.reason }));
  subscription.on('error', (c) => emit('subscription_error', { channel, ...failure(c.error) }));
  subscription.on('sync', (c) => {
    entries.clear();
    for (const each of c.entries) entries.set(each.key, entry(each));
    emit('sync', { channel, count: c.entries.length });
  });
  subscription.on('update', (c) => {
    if (c.removed) entries.delete(c.key);
    else entries.set(c.key, entry(c));
    emit('update', { channel, ...entry(c) });
  });
  subscription.subscribe();
}

const operations = {
  connect,
  subscribe,
  poll,
  track: ({ channel, keys }) => subscriptions.get(channel).track(keys),
  untrack: ({ channel, keys }) => subscriptions.get(channel).untrack(keys),
  signature: ({ keys, signature }) => signatureWaiters.shift().resolve({ keys, signature }),
  subscribe_map: subscribeMap,
  map: ({ channel }) => Object.fromEntries(maps.get(channel)),
  map_publish: ({ channel, key, data }) => subscriptions.get(channel).publish(key, pack(data)),
  map_remove: ({ channel, key }) => subscriptions.get(channel).remove(key),
  unsubscribe: ({ channel }) => subscriptions.get(channel).unsubscribe(),
  disconnect: () => client.disconnect(),
  // The same client once more, with what it remembers.
  connect_again: () => client.connect(),
  // An end without a close frame, as when a cable is pulled.
  kill: () => cut(),
  // A computer that does something else for a while: nothing is read from the WebSocket.
  pause: () => socket.pause(),
  resume: () => socket.resume(),
  token: ({ token, refuse }) => {
    const waiter = tokenWaiters.shift();
    if (refuse) waiter.reject(new UnauthorizedError('refused'));
    else waiter.resolve(token);
  },
  state: ({ offset, epoch }) => stateWaiters.shift()({ offset, epoch }),
  publish: async ({ channel, data }) => {
    await client.publish(channel, pack(data));
    return {};
  },
  subscription_publish: async ({ channel, data }) => {
    await subscriptions.get(channel).publish(pack(data));
    return {};
  },
  // How many frames came since the last look, and in how many of them a text is.
  frames: ({ text }) => {
    const seen = frames;
    frames = [];
    return { count: seen.length, with_text: seen.filter((each) => each.includes(text)).length };
  },
  patches: ({ channel }) => subscriptions.get(channel).deltaStats().numDeltaPayloads,
  presence: async ({ channel }) => {
    const { clients } = await client.presence(channel);
    return Object.fromEntries(Object.entries(clients).map(([key, value]) => [key, info(value)]));
  },
  presence_stats: async ({ channel }) => {
    const stats = await client.presenceStats(channel);
    return { num_clients: stats.numClients, num_users: stats.numUsers };
  },
  history: async ({ channel, limit, reverse, since }) => {
    const history = await client.history(channel, {
      limit: limit ?? 0,
      reverse: reverse ?? false,
      since: since ?? null,
    });
    return {
      publications: history.publications.map(publication),
      offset: Number(history.offset),
      epoch: history.epoch,
    };
  },
  rpc: async ({ method, data }) => ({ data: unpack((await client.rpc(method, pack(data))).data) }),
};

emit('ready');
for await (const line of readline.createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  const { op, ref } = command;
  Promise.resolve()
    .then(() => operations[op](command))
    .then((result) => emit('result', { ref, result: result ?? null }))
    .catch((error) => emit('result', { ref, error: failure(error) }));
}
process.exit(0);
