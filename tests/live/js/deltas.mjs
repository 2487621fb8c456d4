// Applies Fossil deltas by the decoders of the npm package `centrifuge`.
//
//   node deltas.mjs < pairs
//
// A line is {"base":…,"delta":…,"text":…}, the first two in base64; `text` says that both are text. Written is one line each:
// the target in base64, from the Protobuf codec, and from the JSON codec too where it is text; or the error's message.

import readline from 'node:readline';
import { Centrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';

const url = 'ws://localhost';
const json = new Centrifuge(url, { websocket: class {} })._codec;
const protobuf = new ProtobufCentrifuge(url, { websocket: class {} })._codec;
const base64 = (bytes) => Buffer.from(bytes).toString('base64');

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { base, delta, text } = JSON.parse(line);
  const [before, patch] = [base, delta].map((each) => new Uint8Array(Buffer.from(each, 'base64')));
  const answer = {};
  try {
    answer.protobuf = base64(protobuf.applyDeltaIfNeeded({ data: patch, delta: true }, before).newData);
    if (text) {
      const data = new TextDecoder('utf-8', { fatal: true }).decode(patch);
      answer.json = base64(json.applyDeltaIfNeeded({ data, delta: true }, before).newPrevValue);
    }
  } catch (error) {
    answer.error = String(error);
  }
  process.stdout.write(JSON.stringify(answer) + '\n');
}
