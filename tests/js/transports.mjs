// Stock Socket.IO clients in their default settings: polling, the upgrade, recovery of the connection
// on another gateway.
//
//   API=http://.. GATEWAY_A=http://.. GATEWAY_B=http://.. node transports.mjs

import assert from 'node:assert/strict';
import { connect, group, say, seqs, transport, upTo, upgraded } from './lib/default-client.mjs';
import { Native } from './lib/native.mjs';
import { person } from './lib/rest.mjs';
import { Switch } from './lib/switch.mjs';

const { API, GATEWAY_A, GATEWAY_B } = process.env;
const step = (text) => console.log(`ok: ${text}`);

async function upgrades(ann, bob, roomId) {
  const native = await Native.connect(GATEWAY_A, bob.token);
  const client = await connect(GATEWAY_A, ann.token);
  // All the while it goes over, both sides talk.
  await Promise.all([upgraded(client), say(native, roomId, upTo(60)), say(client, roomId, upTo(60, 61))]);
  assert.equal(transport(client), 'websocket');
  await client.events.wait('message.delivered', 120);
  assert.deepEqual(seqs(client.events), upTo(120));
  client.socket.close();
  native.close();
  step('the default client starts by polling and goes over to a WebSocket; nothing is lost, doubled or overtaken');
}

async function polls(ann, bob, roomId) {
  const native = await Native.connect(GATEWAY_A, bob.token);
  const client = await connect(GATEWAY_A, ann.token, { transports: ['polling'] });
  await Promise.all([say(native, roomId, upTo(60, 201)), say(client, roomId, upTo(60, 301))]);
  await client.events.wait('message.delivered', 120);
  assert.deepEqual(seqs(client.events), upTo(120, 121));
  assert.equal(transport(client), 'polling');
  const long = await client.emit('message.send', { roomId, content: 'x'.repeat(16_385), clientMsgId: 'long' });
  assert.equal(long.code, 'TOO_LARGE');
  const binary = await client.emit('message.send', { roomId, content: Buffer.from('x'), clientMsgId: 'binary' });
  assert.deepEqual([binary.code, binary.field], ['INVALID_PAYLOAD', 'content']);
  client.socket.emit('message.send', { roomId, content: 'x'.repeat(300_000), clientMsgId: 'much too long' });
  const [error] = await client.events.wait('error');
  assert.deepEqual([error.code, error.closeCode], ['TOO_LARGE', 4413]);
  await client.events.wait('client.disconnect');
  await client.events.wait('client.connect', 2);
  client.socket.close();
  native.close();
  step('polling alone does all of it; a body over the limit ends the transport, and the client comes back');
}

async function leaves(ann) {
  const client = await connect(GATEWAY_A, ann.token, { transports: ['polling'] });
  client.socket.disconnect();
  client.socket.connect();
  await client.events.wait('session.ready', 2);
  client.socket.close();
  step('who left the namespace comes into it again');
}

async function recovers(ann, bob, roomId, options) {
  const relay = await Switch.to(GATEWAY_A);
  const native = await Native.connect(GATEWAY_A, bob.token);
  const client = await connect(relay.url, ann.token, options);
  if (!options) await upgraded(client);
  const from = client.events.of('session.ready')[0].rooms.find((room) => room.roomId === roomId).lastSeq + 1;
  await say(native, roomId, upTo(5, 1000 + from));
  await client.events.wait('message.delivered', 5);
  const [{ id }] = client.events.of('client.connect');

  relay.point(GATEWAY_B);
  // A poll that is cut is repeated by Node's stand-in for XMLHttpRequest, which then hangs.
  if (transport(client) === 'polling') client.socket.io.engine.close();
  else relay.cut();
  await client.events.wait('client.disconnect');
  await say(native, roomId, upTo(20, 2000 + from));
  const [, back] = await client.events.wait('client.connect', 2);
  assert.deepEqual(back, { id, recovered: true });
  await say(native, roomId, upTo(5, 3000 + from));
  await client.events.wait('message.delivered', 30);
  assert.deepEqual(seqs(client.events), upTo(30, from));
  assert.equal(client.events.of('session.ready').length, 2);
  client.socket.close();
  native.close();
  relay.close();
  step(`a connection that breaks is recovered on another gateway (${options?.transports ?? 'default settings'})`);
}

const [ann, bob] = [await person(API, 'Ann'), await person(API, 'Bob')];
const roomId = await group(API, ann, [bob]);
await upgrades(ann, bob, roomId);
await polls(ann, bob, roomId);
await leaves(ann);
await recovers(ann, bob, roomId);
const soon = { reconnectionDelay: 700, reconnectionDelayMax: 700, randomizationFactor: 0 };
for (const transports of [['websocket'], ['polling', 'websocket'], ['polling']]) {
  await recovers(ann, bob, roomId, { transports, ...soon });
}
